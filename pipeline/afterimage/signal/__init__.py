"""Pure maths of time series: confounds, filters, correlations. Arrays in, arrays out."""
