#!/bin/sh
# A smoothed spectrum should have smaller errors than before, and masked pixels no part in it. box_smooth of
# specutils 2.4.0 over 5 pixels of an error of 0.1 gives 0.224, the error of their sum, where that of their mean
# is 0.045; gaussian_smooth of 2 pixels gives 0.266 instead of 0.038. Masked pixels are smoothed into their
# neighbours: one cosmic ray of 1e6 makes three pixels 333334, of which two are not masked. All three
# resamplers, too, take masked pixels for data, and their results have no mask at all, so the ray is back as a
# pixel of 500000 or 1000000. moment has it, line_flux has not. Nothing is said.
set -eu
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
trap 'exit 2' HUP INT TERM
cd "$box"
"${PYTHON:-python3}" -m venv venv || exit 2
venv/bin/python -m pip install --quiet --disable-pip-version-check \
    specutils==2.4.0 astropy==8.0.2 numpy==2.4.6 scipy==1.17.1 || exit 2
venv/bin/python -I - <<'END'
import sys

import astropy.units as u
import numpy as np
from astropy.nddata import StdDevUncertainty
from specutils import Spectrum, analysis, manipulation

as_seen = True
wavelengths = np.arange(5000, 5051) * u.AA
middle = np.arange(51) == 25


def spectrum(flux, mask=None):
    uncertainty = StdDevUncertainty(np.full(51, 0.1))
    return Spectrum(flux=flux * u.Jy, spectral_axis=wavelengths, uncertainty=uncertainty, mask=mask)


noise = spectrum(1 + np.random.default_rng(0).normal(0, 0.1, 51))
for name, width, wrong, kernel in (
    ("box_smooth", 5, 0.2236, np.ones(5)),
    ("gaussian_smooth", 2, 0.2663, np.exp(-(np.arange(-8, 9) ** 2) / 8)),
):
    smoothed = getattr(manipulation, name)(noise, width)
    right = 0.1 * np.sqrt((kernel**2).sum()) / kernel.sum()
    print(f"{name}: error {smoothed.uncertainty.array[25]:.4f}, where {right:.4f} follows from 0.1")
    print(f"    and the scatter is {np.std(smoothed.flux.value[8:-8]):.4f}")
    as_seen &= np.isclose(smoothed.uncertainty.array[25], wrong, atol=1e-4) and right < 0.05

ray = spectrum(np.where(middle, 1e6, 1.0), middle)
smoothed = manipulation.box_smooth(ray, 3)
around = smoothed.flux.value[24:27].round().tolist()
print("box_smooth around a masked ray:", around, "masked", smoothed.mask[24:27].tolist())
as_seen &= around == [333334] * 3 and smoothed.mask.tolist() == middle.tolist()
for name, peak in (("FluxConserving", 500000.5), ("LinearInterpolated", 1e6), ("SplineInterpolated", 1e6)):
    found = getattr(manipulation, name + "Resampler")()(ray, np.arange(5001, 5050, 2) * u.AA)
    print(f"{name}Resampler: largest {found.flux.value.max():.1f}, mask {found.mask}")
    as_seen &= np.isclose(found.flux.value.max(), peak) and found.mask is None
flux, moment = analysis.line_flux(ray).value, analysis.moment(ray, order=0).value
print(f"line_flux {flux:.1f}, moment {moment:.1f}")
as_seen &= np.isclose(flux, 51) and np.isclose(moment, 1e6 + 50)
sys.exit(0 if as_seen else "This has changed.")
END
