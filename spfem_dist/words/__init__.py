"""From words to a wish about the face: what somebody writes becomes weights of the head's named units."""
