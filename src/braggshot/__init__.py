"""3D images of nanocrystals, with strain, from Bragg coherent diffraction.

::

    detector frames --io.read / live.sources--> Scan --prepare--> DiffractionVolume --phasing--> Reconstruction (detector frame)
       --crystal_frame--> StrainMap (displacement, strain) --> report | viewer | io.write (CXI, VTK)

>>> import braggshot                                  # doctest: +SKIP
>>> result = braggshot.reconstruct("scan.cxi")        # doctest: +SKIP
>>> result.verdict, result.save("scan_result.cxi")    # doctest: +SKIP
"""
