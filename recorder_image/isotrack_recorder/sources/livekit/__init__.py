"""LiveKit: joined over its `/rtc` signalling as a hidden recorder, media received by the plane of `webrtc`.

signalling   websocket, pings, refusals in words
roster       signalling messages folded into who is there (pure)
policy       what a leave, a refusal or a rejoin means (pure)
client       the Source: joins, answers offers, subscribes, joins again
access       tokens and room look-ups for the command line, which holds an API key (the pod holds a token only)
"""
