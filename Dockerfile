# citlr on the processor, from the wheel that `make package` builds:
#   make package && docker build -t citlr . && docker run --rm -v "$PWD:/work" citlr audit audit.yaml --out run
FROM python:3.11-slim-bookworm

# torch for the processor is a tenth of the default's size; its index is an argument, as mirrors differ.
ARG TORCH_INDEX=
COPY dist/*.whl /tmp/dist/
# hadolint ignore=DL3013
RUN if [ -n "$TORCH_INDEX" ]; then pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.9" "torchvision>=0.24"; fi \
    && pip install --no-cache-dir "$(echo /tmp/dist/citlr-*.whl)[dicom,onnx,xlsx]" \
    && rm -r /tmp/dist \
    && useradd --create-home --uid 1000 auditor

USER 1000
WORKDIR /work
ENV OMP_WAIT_POLICY=PASSIVE MPLCONFIGDIR=/tmp/matplotlib
ENTRYPOINT ["citlr"]
CMD ["--help"]
