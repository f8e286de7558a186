"""The learned core: from measured diffraction to the crystal in one forward pass, trained on diffraction alone.

network      the flagship: learned steps with the modulus projection between them
autophasenn  the published networks, for comparison
losses       what training minimises: misfits of measured magnitudes, agreement with the network's own refined outputs
datasets     batches of counts: simulated on the fly, or measured
training     one visible loop, resumable
spacing      any volume to the sampling that a network was trained on, and back
predict      any volume in, hypotheses out
weights      trained networks as files, and the ones that are shipped
"""
