"""The colours of classes, by code, in all pictures."""

# Okabe & Ito, https://jfly.uni-koeln.de/color/; grey in the place of black, which is for letters and lines
COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7", "#999999")
# What a place counts for: nothing, the mean, the most.
WEIGHTS = ("#2166AC", "#F7F7F7", "#B2182B")
