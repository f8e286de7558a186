"""Join several reflections of one crystal: displacement vector, strain tensor, their sigma and a verdict.

orientation   index the reflections and orient the crystal
combine       bring single crystals onto one grid; their twins, shifts and shared displacement
"""
