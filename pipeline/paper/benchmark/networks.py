"""The paper's two networks for 32 and 96 px: ResNet20 (He et al., 3 x 3 stem, option A) and
DenseNet121 (Huang et al., 3 x 3 stem), both with ELU in place of ReLU and one output.

Parameters with one output: ResNet20 269,137, DenseNet121 6,947,073. Published with ten outputs:
0.27 M (269,722) and, for the 32 px form of DenseNet121 without stem normalisation, 6,956,298; 585
and 9,225 of those belong to the nine other outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)


class Scored(nn.Module):
    """Features under one linear classifier in float32; scores in bf16 would tie, and AUC counts a
    tie as a half."""

    def __init__(self, features: nn.Module, channels: int) -> None:
        super().__init__()
        self.features = features
        self.classifier = nn.Linear(channels, 1)
        for module in features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) normalised floats -> (B,) float32 scores."""
        pooled = self.features(images).float().mean((2, 3))
        with torch.autocast(images.device.type, enabled=False):
            return self.classifier(pooled).squeeze(1)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions; where the shape changes, the shortcut drops every other pixel and
    pads channels."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3, stride)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv(outputs, outputs, 3)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.stride = stride
        self.pad = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.elu(self.norm1(self.conv1(x)), inplace=True)))
        if self.pad:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.elu(y + x, inplace=True)


def resnet20() -> Scored:
    """Three stages of three blocks with 16, 32 and 64 channels."""
    layers = [conv(3, 16, 3), nn.BatchNorm2d(16), nn.ELU(inplace=True)]
    channels = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        for block in range(3):
            layers.append(BasicBlock(channels, width, stride if block == 0 else 1))
            channels = width
    return Scored(nn.Sequential(*layers), channels)


class DenseLayer(nn.Module):
    """Norm, ELU, 1 x 1 to four times the growth; norm, ELU, 3 x 3 to the growth; joined to the
    input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv(inputs, 4 * growth, 1)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = conv(4 * growth, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.elu(self.norm1(x), inplace=True))
        return torch.cat([x, self.conv2(F.elu(self.norm2(y), inplace=True))], 1)


def densenet121(growth: int = 32) -> Scored:
    """Blocks of 6, 12, 24 and 16 layers; between them channels and sides are halved."""
    channels = 2 * growth
    layers = [conv(3, channels, 3)]
    for index, depth in enumerate((6, 12, 24, 16)):
        for _ in range(depth):
            layers.append(DenseLayer(channels, growth))
            channels += growth
        layers += [nn.BatchNorm2d(channels), nn.ELU(inplace=True)]
        if index < 3:
            layers += [conv(channels, channels // 2, 1), nn.AvgPool2d(2)]
            channels //= 2
    return Scored(nn.Sequential(*layers), channels)


NETWORKS = {"resnet20": resnet20, "densenet121": densenet121}
