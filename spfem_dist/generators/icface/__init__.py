"""ICface (Tripathy, Kannala, Rahtu, WACV 2020): a neutraliser takes the expression out of a picture, an animator puts action units in."""
