"""pip install of dimm_ros on a machine without ROS; in a ROS workspace colcon builds CMakeLists.txt instead."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="dimm_ros",
    version="0.1.0",
    description="Camera relocalization by dense image-to-ray regression on frozen DINOv2 tokens, for ROS 2",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["dimm_ros", "dimm_ros.*"]),
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.2",
        "transformers>=4.48",
        "safetensors",
        "numpy",
        "scipy",
        "pillow",
        "opencv-python-headless>=4.8",  # cv2 for pip; a ROS machine has it from python3-opencv (see README.md)
        "pydantic>=2",
        "typer",
        "rich",
        "pyyaml",
        "rosbags>=0.11",  # reads and writes bags without ROS
        "backports.zstd; python_version < '3.14'",  # packed bags; in Python's own library from 3.14 on
        "transforms3d",
        "matplotlib",
        "onnx",  # reads the offline carrier of the encoder's weights
        "evo",
    ],
    extras_require={
        "demo": ["scikit-image", "pillow"],  # the gallery's photographs
        "onnx": ["onnxruntime"],  # the back end 'onnx'; onnxruntime-gpu for CUDA and TensorRT
        "rerun": ["rerun-sdk"],  # 'dimm eval --rerun'
        "test": ["pytest", "pytest-timeout", "hypothesis", "cyclonedds", "ruff", "onnxruntime"],
    },
    entry_points={"console_scripts": ["dimm = dimm_ros.cli.main:main"]},
)
