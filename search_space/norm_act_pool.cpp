// Norm, (leaky) ReLU and 2x2 pooling of channels-last maps in one operation, with first and second derivative. And the
// whole first block of a network (image_block.h), whose norm, activation and pooling are the same.
#include "norm_act_pool_second.h"

#include "image_block.h"

namespace {

// The norm's weight and bias are per channel here, the activation piecewise linear.
template <class S, class F>
void with(const int64_t* how, F body) {
  with_pooling<false, Leaky<S>>(how, body);
}

}  // namespace

#define EXPORT(SUFFIX, T, S)       \
  EXPORT_FIRST(with, SUFFIX, T, S) \
  EXPORT_BLOCK(with, SUFFIX, T, S)

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bf16, float)
EXPORT_SECOND(with, float32, float, float)
EXPORT_SECOND(with, float64, double, double)
