"""The operators of ONNX as methods of ``op``; written by tools/operator_stub.py from onnx 1.23.2."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
import torch

from onnxport.emit.symbols import Size
from onnxport.emit.tensor import Tensor

_Number = bool | int | float | Size | np.generic
_Value = Tensor | _Number | np.ndarray[Any, Any] | Sequence[Any] | None
_Int = int | np.integer[Any] | np.bool_ | torch.dtype | ir.Attr
_Ints = Sequence[int] | np.ndarray[Any, Any] | ir.Attr
_Float = float | np.number[Any] | ir.Attr
_Floats = Sequence[float] | np.ndarray[Any, Any] | ir.Attr
_String = str | bytes | ir.Attr
_Strings = Sequence[str] | ir.Attr
_Constant = torch.Tensor | ir.TensorProtocol | np.ndarray[Any, Any] | Sequence[Any] | bool | float | ir.Attr
_Subgraph = ir.Graph | ir.Attr

class Operators(Protocol):
    def Abs(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Acos(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 7, 22."""

    def Acosh(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 9, 22."""

    def Add(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 14."""

    def AffineGrid(self, theta: _Value, size: _Value, /, *, align_corners: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 20."""

    def And(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 7."""

    def ArgMax(self, data: _Value, /, *, axis: _Int | None = None, keepdims: _Int | None = None, select_last_index: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def ArgMin(self, data: _Value, /, *, axis: _Int | None = None, keepdims: _Int | None = None, select_last_index: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Asin(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 7, 22."""

    def Asinh(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 9, 22."""

    def Atan(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 7, 22."""

    def Atanh(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 9, 22."""

    def Attention(self, Q: _Value, K: _Value, V: _Value, attn_mask: _Value = None, past_key: _Value = None, past_value: _Value = None, nonpad_kv_seqlen: _Value = None, /, *, is_causal: _Int | None = None, kv_num_heads: _Int | None = None, left_window_size: _Int | None = None, q_num_heads: _Int | None = None, qk_matmul_output_mode: _Int | None = None, right_window_size: _Int | None = None, scale: _Float | None = None, softcap: _Float | None = None, softmax_precision: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 23, 24, 25."""

    def AveragePool(self, X: _Value, /, *, auto_pad: _String | None = None, ceil_mode: _Int | None = None, count_include_pad: _Int | None = None, dilations: _Ints | None = None, kernel_shape: _Ints, pads: _Ints | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 19, 22."""

    def BatchNormalization(self, X: _Value, scale: _Value, B: _Value, input_mean: _Value, input_var: _Value, /, *, epsilon: _Float | None = None, momentum: _Float | None = None, training_mode: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 15."""

    def Bernoulli(self, input: _Value, /, *, dtype: _Int | None = None, seed: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 15, 22."""

    def BitCast(self, input: _Value, /, *, to: _Int, outputs: int | None = None) -> Tensor:
        """Versions of opset 26."""

    def BitShift(self, X: _Value, Y: _Value, /, *, direction: _String, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 28."""

    def BitwiseAnd(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def BitwiseNot(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def BitwiseOr(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def BitwiseXor(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def BlackmanWindow(self, size: _Value, /, *, output_datatype: _Int | None = None, periodic: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 17."""

    def Cast(self, input: _Value, /, *, round_mode: _String | None = None, saturate: _Int | None = None, to: _Int, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 19, 21, 23, 24, 25, 28."""

    def CastLike(self, input: _Value, target_type: _Value, /, *, round_mode: _String | None = None, saturate: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 15, 19, 21, 23, 24, 25."""

    def CausalConvWithState(self, input: _Value, weight: _Value, bias: _Value = None, past_state: _Value = None, /, *, activation: _String | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 27."""

    def Ceil(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Celu(self, X: _Value, /, *, alpha: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 12, 28."""

    def CenterCropPad(self, input_data: _Value, shape: _Value, /, *, axes: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def Clip(self, input: _Value, min: _Value = None, max: _Value = None, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Col2Im(self, input: _Value, image_shape: _Value, block_shape: _Value, /, *, dilations: _Ints | None = None, pads: _Ints | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def Compress(self, input: _Value, condition: _Value, /, *, axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 28."""

    def Concat(self, *inputs: _Value, axis: _Int, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def ConcatFromSequence(self, input_sequence: _Value, /, *, axis: _Int, new_axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11."""

    def Constant(self, *, sparse_value: Any | None = None, value: _Constant | None = None, value_float: _Float | None = None, value_floats: _Floats | None = None, value_int: _Int | None = None, value_ints: _Ints | None = None, value_string: _String | None = None, value_strings: _Strings | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 19, 21, 23, 24, 25."""

    def ConstantOfShape(self, input: _Value, /, *, value: _Constant | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 9, 20, 21, 23, 24, 25."""

    def Conv(self, X: _Value, W: _Value, B: _Value = None, /, *, auto_pad: _String | None = None, dilations: _Ints | None = None, group: _Int | None = None, kernel_shape: _Ints | None = None, pads: _Ints | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 22."""

    def ConvInteger(self, x: _Value, w: _Value, x_zero_point: _Value = None, w_zero_point: _Value = None, /, *, auto_pad: _String | None = None, dilations: _Ints | None = None, group: _Int | None = None, kernel_shape: _Ints | None = None, pads: _Ints | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 10."""

    def ConvTranspose(self, X: _Value, W: _Value, B: _Value = None, /, *, auto_pad: _String | None = None, dilations: _Ints | None = None, group: _Int | None = None, kernel_shape: _Ints | None = None, output_padding: _Ints | None = None, output_shape: _Ints | None = None, pads: _Ints | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 22."""

    def Cos(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 7, 22."""

    def Cosh(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 9, 22."""

    def CumProd(self, x: _Value, axis: _Value, /, *, exclusive: _Int | None = None, reverse: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 26."""

    def CumSum(self, x: _Value, axis: _Value, /, *, exclusive: _Int | None = None, reverse: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 14."""

    def DFT(self, input: _Value, dft_length: _Value = None, axis_: _Value = None, /, *, axis: _Int | None = None, inverse: _Int | None = None, onesided: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 17, 20."""

    def DeformConv(self, X: _Value, W: _Value, offset: _Value, B: _Value = None, mask: _Value = None, /, *, dilations: _Ints | None = None, group: _Int | None = None, kernel_shape: _Ints | None = None, offset_group: _Int | None = None, pads: _Ints | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 19, 22."""

    def DepthToSpace(self, input: _Value, /, *, blocksize: _Int, mode: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 28."""

    def DequantizeLinear(self, x: _Value, x_scale: _Value, x_zero_point: _Value = None, /, *, axis: _Int | None = None, block_size: _Int | None = None, output_dtype: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 19, 21, 23, 24, 25, 28."""

    def Det(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 22."""

    def Div(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 14."""

    def Dropout(self, data: _Value, ratio: _Value = None, training_mode: _Value = None, /, *, seed: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 13, 22."""

    def DynamicQuantizeLinear(self, x: _Value, /, *, outputs: int | None = None) -> Any:
        """Versions of opset 11."""

    def Einsum(self, *Inputs: _Value, equation: _String, outputs: int | None = None) -> Tensor:
        """Versions of opset 12, 28."""

    def Elu(self, X: _Value, /, *, alpha: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 6, 22."""

    def Equal(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 19."""

    def Erf(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Exp(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Expand(self, input: _Value, shape: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def EyeLike(self, input: _Value, /, *, dtype: _Int | None = None, k: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 9, 22."""

    def Flatten(self, input: _Value, /, *, axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 21, 23, 24, 25."""

    def Floor(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def GRU(self, X: _Value, W: _Value, R: _Value, B: _Value = None, sequence_lens: _Value = None, initial_h: _Value = None, /, *, activation_alpha: _Floats | None = None, activation_beta: _Floats | None = None, activations: _Strings | None = None, clip: _Float | None = None, direction: _String | None = None, hidden_size: _Int | None = None, layout: _Int | None = None, linear_before_reset: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 14, 22."""

    def Gather(self, data: _Value, indices: _Value, /, *, axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def GatherElements(self, data: _Value, indices: _Value, /, *, axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def GatherND(self, data: _Value, indices: _Value, /, *, batch_dims: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Gelu(self, X: _Value, /, *, approximate: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 20."""

    def Gemm(self, A: _Value, B: _Value, C: _Value = None, /, *, alpha: _Float | None = None, beta: _Float | None = None, transA: _Int | None = None, transB: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def GlobalAveragePool(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def GlobalLpPool(self, X: _Value, /, *, p: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 2, 22."""

    def GlobalMaxPool(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def Greater(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def GreaterOrEqual(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 16."""

    def GridSample(self, X: _Value, grid: _Value, /, *, align_corners: _Int | None = None, mode: _String | None = None, padding_mode: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 16, 20, 22."""

    def GroupNormalization(self, X: _Value, scale: _Value, bias: _Value, /, *, epsilon: _Float | None = None, num_groups: _Int, stash_type: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 21."""

    def HammingWindow(self, size: _Value, /, *, output_datatype: _Int | None = None, periodic: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 17."""

    def HannWindow(self, size: _Value, /, *, output_datatype: _Int | None = None, periodic: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 17."""

    def HardSigmoid(self, X: _Value, /, *, alpha: _Float | None = None, beta: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 6, 22."""

    def HardSwish(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 14, 22."""

    def Hardmax(self, input: _Value, /, *, axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Identity(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 16, 19, 21, 23, 24, 25."""

    def If(self, cond: _Value, /, *, else_branch: _Subgraph, then_branch: _Subgraph, outputs: int | None = None) -> Any:
        """Versions of opset 16, 19, 21, 23, 24, 25."""

    def ImageDecoder(self, encoded_stream: _Value, /, *, pixel_format: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 20."""

    def InstanceNormalization(self, input: _Value, scale: _Value, B: _Value, /, *, epsilon: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 6, 22."""

    def IsInf(self, X: _Value, /, *, detect_negative: _Int | None = None, detect_positive: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 10, 20."""

    def IsNaN(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 20."""

    def LRN(self, X: _Value, /, *, alpha: _Float | None = None, beta: _Float | None = None, bias: _Float | None = None, size: _Int, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def LSTM(self, X: _Value, W: _Value, R: _Value, B: _Value = None, sequence_lens: _Value = None, initial_h: _Value = None, initial_c: _Value = None, P: _Value = None, /, *, activation_alpha: _Floats | None = None, activation_beta: _Floats | None = None, activations: _Strings | None = None, clip: _Float | None = None, direction: _String | None = None, hidden_size: _Int | None = None, input_forget: _Int | None = None, layout: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 14, 22."""

    def LayerNormalization(self, X: _Value, Scale: _Value, B: _Value = None, /, *, axis: _Int | None = None, epsilon: _Float | None = None, stash_type: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 17."""

    def LeakyRelu(self, X: _Value, /, *, alpha: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 16."""

    def Less(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def LessOrEqual(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 16."""

    def LinearAttention(self, query: _Value, key: _Value, value: _Value, past_state: _Value = None, decay: _Value = None, beta: _Value = None, /, *, chunk_size: _Int | None = None, kv_num_heads: _Int, q_num_heads: _Int, scale: _Float | None = None, update_rule: _String | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 27."""

    def Log(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def LogSoftmax(self, input: _Value, /, *, axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Loop(self, M: _Value, cond: _Value, *v_initial: _Value, body: _Subgraph, outputs: int | None = None) -> Any:
        """Versions of opset 16, 19, 21, 23, 24, 25."""

    def LpNormalization(self, input: _Value, /, *, axis: _Int | None = None, p: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def LpPool(self, X: _Value, /, *, auto_pad: _String | None = None, ceil_mode: _Int | None = None, dilations: _Ints | None = None, kernel_shape: _Ints, p: _Int | None = None, pads: _Ints | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 22."""

    def MatMul(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def MatMulInteger(self, A: _Value, B: _Value, a_zero_point: _Value = None, b_zero_point: _Value = None, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 10."""

    def Max(self, *data_0: _Value, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def MaxPool(self, X: _Value, /, *, auto_pad: _String | None = None, ceil_mode: _Int | None = None, dilations: _Ints | None = None, kernel_shape: _Ints, pads: _Ints | None = None, storage_order: _Int | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 12, 22."""

    def MaxRoiPool(self, X: _Value, rois: _Value, /, *, pooled_shape: _Ints, spatial_scale: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def MaxUnpool(self, X: _Value, I: _Value, output_shape: _Value = None, /, *, kernel_shape: _Ints, pads: _Ints | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 22."""

    def Mean(self, *data_0: _Value, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def MeanVarianceNormalization(self, X: _Value, /, *, axes: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def MelWeightMatrix(self, num_mel_bins: _Value, dft_length: _Value, sample_rate: _Value, lower_edge_hertz: _Value, upper_edge_hertz: _Value, /, *, output_datatype: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 17."""

    def Min(self, *data_0: _Value, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Mish(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 22."""

    def Mod(self, A: _Value, B: _Value, /, *, fmod: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 28."""

    def Mul(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 14."""

    def Multinomial(self, input: _Value, /, *, dtype: _Int | None = None, sample_size: _Int | None = None, seed: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 7, 22."""

    def Neg(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def NegativeLogLikelihoodLoss(self, input: _Value, target: _Value, weight: _Value = None, /, *, ignore_index: _Int | None = None, reduction: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 22."""

    def NonMaxSuppression(self, boxes: _Value, scores: _Value, max_output_boxes_per_class: _Value = None, iou_threshold: _Value = None, score_threshold: _Value = None, /, *, center_point_box: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11."""

    def NonZero(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Not(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 1."""

    def OneHot(self, indices: _Value, depth: _Value, values: _Value, /, *, axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 28."""

    def Optional(self, input: _Value = None, /, *, type: Any | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 15, 28."""

    def OptionalGetElement(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 28."""

    def OptionalHasElement(self, input: _Value = None, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 28."""

    def Or(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 7."""

    def PRelu(self, X: _Value, slope: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 16."""

    def Pad(self, data: _Value, pads: _Value, constant_value: _Value = None, axes: _Value = None, /, *, mode: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 19, 21, 23, 24, 25."""

    def Pow(self, X: _Value, Y: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 15."""

    def QLinearConv(self, x: _Value, x_scale: _Value, x_zero_point: _Value, w: _Value, w_scale: _Value, w_zero_point: _Value, y_scale: _Value, y_zero_point: _Value, B: _Value = None, /, *, auto_pad: _String | None = None, dilations: _Ints | None = None, group: _Int | None = None, kernel_shape: _Ints | None = None, pads: _Ints | None = None, strides: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 10."""

    def QLinearMatMul(self, a: _Value, a_scale: _Value, a_zero_point: _Value, b: _Value, b_scale: _Value, b_zero_point: _Value, y_scale: _Value, y_zero_point: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 10, 21."""

    def QuantizeLinear(self, x: _Value, y_scale: _Value, y_zero_point: _Value = None, /, *, axis: _Int | None = None, block_size: _Int | None = None, output_dtype: _Int | None = None, precision: _Int | None = None, saturate: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 19, 21, 23, 24, 25, 28."""

    def RMSNormalization(self, X: _Value, scale: _Value, /, *, axis: _Int | None = None, epsilon: _Float | None = None, stash_type: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 23."""

    def RNN(self, X: _Value, W: _Value, R: _Value, B: _Value = None, sequence_lens: _Value = None, initial_h: _Value = None, /, *, activation_alpha: _Floats | None = None, activation_beta: _Floats | None = None, activations: _Strings | None = None, clip: _Float | None = None, direction: _String | None = None, hidden_size: _Int | None = None, layout: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 14, 22."""

    def RandomNormal(self, *, dtype: _Int | None = None, mean: _Float | None = None, scale: _Float | None = None, seed: _Float | None = None, shape: _Ints, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def RandomNormalLike(self, input: _Value, /, *, dtype: _Int | None = None, mean: _Float | None = None, scale: _Float | None = None, seed: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def RandomUniform(self, *, dtype: _Int | None = None, high: _Float | None = None, low: _Float | None = None, seed: _Float | None = None, shape: _Ints, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def RandomUniformLike(self, input: _Value, /, *, dtype: _Int | None = None, high: _Float | None = None, low: _Float | None = None, seed: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def Range(self, start: _Value, limit: _Value, delta: _Value, /, *, stash_type: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 27."""

    def Reciprocal(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def ReduceL1(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def ReduceL2(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def ReduceLogSum(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 28."""

    def ReduceLogSumExp(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 28."""

    def ReduceMax(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 20."""

    def ReduceMean(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def ReduceMin(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 20."""

    def ReduceProd(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def ReduceSum(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def ReduceSumSquare(self, data: _Value, axes: _Value = None, /, *, keepdims: _Int | None = None, noop_with_empty_axes: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def RegexFullMatch(self, X: _Value, /, *, pattern: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 20."""

    def Relu(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 14."""

    def Reshape(self, data: _Value, shape: _Value, /, *, allowzero: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 14, 19, 21, 23, 24, 25."""

    def Resize(self, X: _Value, roi: _Value = None, scales: _Value = None, sizes: _Value = None, /, *, antialias: _Int | None = None, axes: _Ints | None = None, coordinate_transformation_mode: _String | None = None, cubic_coeff_a: _Float | None = None, exclude_outside: _Int | None = None, extrapolation_value: _Float | None = None, keep_aspect_ratio_policy: _String | None = None, mode: _String | None = None, nearest_mode: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18, 19."""

    def ReverseSequence(self, input: _Value, sequence_lens: _Value, /, *, batch_axis: _Int | None = None, time_axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 10, 28."""

    def RoiAlign(self, X: _Value, rois: _Value, batch_indices: _Value, /, *, coordinate_transformation_mode: _String | None = None, mode: _String | None = None, output_height: _Int | None = None, output_width: _Int | None = None, sampling_ratio: _Int | None = None, spatial_scale: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 16, 22."""

    def RotaryEmbedding(self, X: _Value, cos_cache: _Value, sin_cache: _Value, position_ids: _Value = None, /, *, interleaved: _Int | None = None, num_heads: _Int | None = None, rotary_embedding_dim: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 23."""

    def Round(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 22."""

    def STFT(self, signal: _Value, frame_step: _Value, window: _Value = None, frame_length: _Value = None, /, *, onesided: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 17."""

    def Scan(self, *initial_state_and_scan_inputs: _Value, body: _Subgraph, num_scan_inputs: _Int, scan_input_axes: _Ints | None = None, scan_input_directions: _Ints | None = None, scan_output_axes: _Ints | None = None, scan_output_directions: _Ints | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 16, 19, 21, 23, 24, 25."""

    def ScatterElements(self, data: _Value, indices: _Value, updates: _Value, /, *, axis: _Int | None = None, reduction: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def ScatterND(self, data: _Value, indices: _Value, updates: _Value, /, *, reduction: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 18."""

    def Selu(self, X: _Value, /, *, alpha: _Float | None = None, gamma: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 6, 22."""

    def SequenceAt(self, input_sequence: _Value, position: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 11."""

    def SequenceConstruct(self, *inputs: _Value, outputs: int | None = None) -> Tensor:
        """Versions of opset 11."""

    def SequenceEmpty(self, *, dtype: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11."""

    def SequenceErase(self, input_sequence: _Value, position: _Value = None, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 11."""

    def SequenceInsert(self, input_sequence: _Value, tensor: _Value, position: _Value = None, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 11."""

    def SequenceLength(self, input_sequence: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 11."""

    def SequenceMap(self, input_sequence: _Value, *additional_inputs: _Value, body: _Subgraph, outputs: int | None = None) -> Any:
        """Versions of opset 17."""

    def Shape(self, data: _Value, /, *, end: _Int | None = None, start: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 15, 19, 21, 23, 24, 25."""

    def Shrink(self, input: _Value, /, *, bias: _Float | None = None, lambd: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 9."""

    def Sigmoid(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Sign(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Sin(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 7, 22."""

    def Sinh(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 9, 22."""

    def Size(self, data: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 19, 21, 23, 24, 25."""

    def Slice(self, data: _Value, starts: _Value, ends: _Value, axes: _Value = None, steps: _Value = None, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Softmax(self, input: _Value, /, *, axis: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def SoftmaxCrossEntropyLoss(self, scores: _Value, labels: _Value, weights: _Value = None, /, *, ignore_index: _Int | None = None, reduction: _String | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 13."""

    def Softplus(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def Softsign(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 1, 22."""

    def SpaceToDepth(self, input: _Value, /, *, blocksize: _Int, mode: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 28."""

    def Split(self, input: _Value, split: _Value = None, /, *, axis: _Int | None = None, num_outputs: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 18."""

    def SplitToSequence(self, input: _Value, split: _Value = None, /, *, axis: _Int | None = None, keepdims: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 11, 24."""

    def Sqrt(self, X: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def Squeeze(self, data: _Value, axes: _Value = None, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 21, 23, 24, 25."""

    def StringConcat(self, X: _Value, Y: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 20."""

    def StringNormalizer(self, X: _Value, /, *, case_change_action: _String | None = None, is_case_sensitive: _Int | None = None, locale: _String | None = None, stopwords: _Strings | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 10."""

    def StringSplit(self, X: _Value, /, *, delimiter: _String | None = None, maxsplit: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 20."""

    def Sub(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 14."""

    def Sum(self, *data_0: _Value, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def SwiGLU(self, A: _Value, B: _Value, /, *, alpha: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 28."""

    def Swish(self, X: _Value, /, *, alpha: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 24."""

    def Tan(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 7, 22."""

    def Tanh(self, input: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def TensorScatter(self, past_cache: _Value, update: _Value, write_indices: _Value = None, /, *, axis: _Int | None = None, mode: _String | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 24."""

    def TfIdfVectorizer(self, X: _Value, /, *, max_gram_length: _Int, max_skip_count: _Int, min_gram_length: _Int, mode: _String, ngram_counts: _Ints, ngram_indexes: _Ints, pool_int64s: _Ints | None = None, pool_strings: _Strings | None = None, weights: _Floats | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 9."""

    def ThresholdedRelu(self, X: _Value, /, *, alpha: _Float | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 10, 22."""

    def Tile(self, input: _Value, repeats: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13."""

    def TopK(self, X: _Value, K: _Value, /, *, axis: _Int | None = None, largest: _Int | None = None, sorted: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 11, 24."""

    def Transpose(self, data: _Value, /, *, perm: _Ints | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 21, 23, 24, 25."""

    def Trilu(self, input: _Value, k: _Value = None, /, *, upper: _Int | None = None, outputs: int | None = None) -> Tensor:
        """Versions of opset 14."""

    def Unique(self, X: _Value, /, *, axis: _Int | None = None, sorted: _Int | None = None, outputs: int | None = None) -> Any:
        """Versions of opset 11, 28."""

    def Unsqueeze(self, data: _Value, axes: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 13, 21, 23, 24, 25."""

    def Where(self, condition: _Value, X: _Value, Y: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 16."""

    def Xor(self, A: _Value, B: _Value, /, *, outputs: int | None = None) -> Tensor:
        """Versions of opset 7."""
