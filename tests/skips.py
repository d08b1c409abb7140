"""Reasons for which a test may be skipped. A skip for any other reason fails the run (tests/conftest.py)."""

REFERENCES = "needs the reference libraries: ./scripts/references.sh"
TPU_COMPILER = "needs the TPU compiler: pip install 'mmjax[plan-tpu]'"
GPU_COMPILER = "needs the GPU compiler: pip install 'mmjax[plan-gpu]'"
JAVA = "needs Java"
CHROMIUM = "needs Chromium"
DEBIAN = "needs a Debian system"
DEPLOY = "needs flatbuffers: pip install 'mmjax[deploy]'"
NODE = "needs Node.js"
PROMPTS = "needs Debian's spoken prompts: apt install asterisk-core-sounds-en-wav"
SERVE = "needs the packages of the service: pip install 'mmjax[serve]' httpx2"
EXPECTED = (REFERENCES, TPU_COMPILER, GPU_COMPILER, JAVA, CHROMIUM, DEBIAN, DEPLOY, NODE, PROMPTS, SERVE)
