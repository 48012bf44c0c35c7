"""Prints the descriptors of Triton's own client, serialised, in base64: a FileDescriptorSet.

python -m tests.contract.triton_descriptors
"""

import base64

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from tritonclient.grpc import model_config_pb2, service_pb2


def main() -> None:
    files = FileDescriptorSet()
    for module in (service_pb2, model_config_pb2):
        module.DESCRIPTOR.CopyToProto(files.file.add())
    print(base64.b64encode(files.SerializeToString()).decode())


if __name__ == "__main__":
    main()
