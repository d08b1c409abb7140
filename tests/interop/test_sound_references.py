"""Features of sound against librosa, python_speech_features and transformers."""

import numpy as np
import pytest

from mmjax.data.sound.features import SPEECH, Fbank, LogMel, Mfcc, WhisperMel
from tests.data.sounds import tone
from tests.interop.references import reference

pytestmark = pytest.mark.references
X = tone(1.0)


@pytest.mark.parametrize("htk", [False, True])
def test_librosa(htk):
  librosa = reference("librosa")
  power = librosa.feature.melspectrogram(
    y=X, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=64, htk=htk, norm=None if htk else "slaney"
  )
  ours = LogMel(scale="htk", area=False) if htk else LogMel()
  np.testing.assert_allclose(ours(X), np.log(np.maximum(power, 1e-10)).T, atol=1e-3)


def test_librosa_cepstra():
  librosa = reference("librosa")
  power = librosa.feature.melspectrogram(y=X, sr=16000, n_fft=512, win_length=400, hop_length=160, n_mels=64)
  theirs = librosa.feature.mfcc(S=10 * np.log10(np.maximum(power, 1e-10)), n_mfcc=20)
  deltas = librosa.feature.delta(theirs, width=5, mode="nearest")
  ours = Mfcc(LogMel(logarithm="log10"), coefficients=20, lifter=0, deltas=1)(X)
  np.testing.assert_allclose(10 * ours, np.concatenate([theirs, deltas]).T, atol=1e-3)


def test_python_speech_features():
  theirs = reference("python_speech_features")
  np.testing.assert_allclose(SPEECH(X), theirs.logfbank(X, 16000), atol=1e-3)
  for energy in (False, True):
    cepstra = theirs.mfcc(X, 16000, appendEnergy=energy)
    delta = theirs.delta(cepstra, 2)
    parts = [cepstra, delta, theirs.delta(delta, 2)]
    np.testing.assert_allclose(Mfcc(energy=energy)(X), np.concatenate(parts, axis=1), atol=1e-3)


@pytest.mark.parametrize("mels", [80, 128])
def test_whisper(mels):
  theirs = reference("transformers").WhisperFeatureExtractor(feature_size=mels)
  padded = np.pad(X, (0, 480_000 - len(X)))
  found = theirs(X, sampling_rate=16000, return_tensors="np").input_features[0].T
  # Processors differ in the rounding of the Fourier transform: up to 1.7e-5 where there is nearly no sound.
  np.testing.assert_allclose(WhisperMel(mels=mels)(padded), found, atol=3e-5)


def test_ast():
  theirs = reference("transformers").ASTFeatureExtractor()
  found = theirs(X, sampling_rate=16000, return_tensors="np").input_values[0]
  ours = Fbank()(X)
  np.testing.assert_allclose(found[: len(ours)], ours, atol=1e-5)
  np.testing.assert_allclose(found[len(ours) :], Fbank().padding, atol=1e-6)
