"""The media of phones behind NATs, through a relay: rtpengine."""
