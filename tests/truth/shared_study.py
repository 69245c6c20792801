"""Simulated subjects who saw different pictures: a semantic code, a low-level code, and own voxels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from afterimage.decoding.shared import SubjectData

N_SEMANTIC = 64


@dataclass(frozen=True)
class Person:
    """A subject: responses are code @ maps + noise, of standard deviation ``noise``."""

    maps: np.ndarray  # (n_codes, n_voxels)
    noise: float
    data: SubjectData
    test: np.ndarray  # (n_test, n_voxels), single responses to the test pictures

    def oracle(self, n: int = N_SEMANTIC) -> np.ndarray:
        """Best linear unbiased prediction of the semantic code, from the planted maps."""
        inner = self.maps @ self.maps.T / self.noise**2
        gain = np.linalg.solve(inner + np.eye(len(inner)), self.maps / self.noise**2)
        return np.asarray((self.test @ gain.T)[:, :n])


@dataclass(frozen=True)
class Study:
    """Subjects by name, and what the test pictures are."""

    people: dict[str, Person]
    gallery: dict[str, np.ndarray]
    names: np.ndarray


def simulate(
    n_trials: dict[str, int],
    n_voxels: dict[str, int],
    *,
    n_test: int = 300,
    noise: float = 3.0,
    n_low: int = 0,
    seed: int,
) -> Study:
    """Draw subjects with disjoint training pictures; the test pictures are the same for all."""
    rng = np.random.default_rng(seed)
    test = rng.standard_normal((n_test, N_SEMANTIC + n_low))
    people = {}
    for name, n in n_trials.items():
        maps = (
            rng.standard_normal((N_SEMANTIC + n_low, n_voxels[name])) / 8
        )  # 64 codes: variance 1
        codes = rng.standard_normal((n, N_SEMANTIC + n_low))
        responses = codes @ maps + noise * rng.standard_normal((n, n_voxels[name]))
        seen = np.array([f"{name}-{i:05d}" for i in range(n)])
        regions = np.array(["V1", "V4", "FFA", "PPA"])[np.arange(n_voxels[name]) % 4]
        data = SubjectData(responses.astype(np.float32), blocks(codes), seen, regions)
        shown = test @ maps + noise * rng.standard_normal((n_test, n_voxels[name]))
        people[name] = Person(maps, noise, data, shown.astype(np.float32))
    return Study(people, blocks(test), np.array([f"test-{i:03d}" for i in range(n_test)]))


def blocks(codes: np.ndarray) -> dict[str, np.ndarray]:
    """Feature blocks of codes: the semantic one, and a low-level one where there is one."""
    found = {"clip": codes[:, :N_SEMANTIC].astype(np.float32)}
    if codes.shape[1] > N_SEMANTIC:
        found["vae"] = codes[:, N_SEMANTIC:].astype(np.float32)
    return found


def first(data: SubjectData, n: int) -> SubjectData:
    """Return the first trials of a subject."""
    features = {name: values[:n] for name, values in data.features.items()}
    return SubjectData(data.responses[:n], features, data.stimuli[:n], data.regions)


def top1(scores: np.ndarray) -> float:
    """Share of trials whose own picture, on the diagonal, has the highest score."""
    return float((scores.argmax(1) == np.arange(len(scores))).mean())


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of rows, (n, m)."""
    a, b = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (a, b))
    return np.asarray(a @ b.T)


def ridge_top1(data: SubjectData, test: np.ndarray, gallery: np.ndarray) -> float:
    """Retrieve by ridge regression, its penalty chosen on inner folds."""
    from sklearn.linear_model import RidgeCV

    fitted = RidgeCV(np.logspace(0, 6, 13)).fit(data.responses, data.features["clip"])
    return top1(cosine(fitted.predict(test), gallery))
