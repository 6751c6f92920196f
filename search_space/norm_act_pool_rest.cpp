// What fewer networks have: layer norm, whose weight and bias are per element, and sigmoid and swish.
#include "norm_act_pool_second.h"

#include "image_block.h"

namespace {

template <class S, class F>
void with_channels(const int64_t* how, F body) {
  with_pooling<false, Smooth<S>>(how, body);
}

template <class S, class F>
void with_elements(const int64_t* how, F body) {
  if (how[kActivation] == kLeaky) with_pooling<true, Leaky<S>>(how, body);
  if (how[kActivation] == kSmooth) with_pooling<true, Smooth<S>>(how, body);
}

template <class S, class F>
void with(const int64_t* how, F body) {
  if (how[kElements]) return with_elements<S>(how, body);
  with_channels<S>(how, body);
}

}  // namespace

#define EXPORT_ELEMENTS(SUFFIX, T, S)                                                                                \
  extern "C" void elements_##SUFFIX(const int64_t* sizes, const double* numbers, const T* x, const T* grad,          \
                                    const S* weight, const S* bias, const S* mean, const S* rstd, S* by_weights,     \
                                    S* by_biases) {                                                                  \
    const Shape<S> s = shape_of(sizes, numbers, weight, bias);                                                       \
    with_elements<S>(sizes + 5, [&](auto how) {                                                                      \
      elements<decltype(how)>(s, x, grad, mean, rstd, by_weights, by_biases, int(sizes[4]));                         \
    });                                                                                                              \
  }
#define EXPORT(SUFFIX, T, S)                  \
  EXPORT_FIRST(with, SUFFIX, T, S)            \
  EXPORT_ELEMENTS(SUFFIX, T, S)               \
  EXPORT_BLOCK(with_channels, SUFFIX, T, S)

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bf16, float)
EXPORT_SECOND(with, float32, float, float)
EXPORT_SECOND(with, float64, double, double)
