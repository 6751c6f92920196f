// Norm, activation and pooling of a batch of channels-last maps, samples [n, h, w, c] one after another.
#pragma once
#include "norm_act_pool.h"

namespace {

// In: mean and variance of each sample's channels [n, c]. Out: mean and 1 / sqrt(variance + eps) of the batch's channels,
// the same for each sample.
template <class S>
void batch_statistics(const Shape<S>& s, S* mean, S* rstd) {
  for (int64_t c = 0; c < s.c; c++) {
    S middle = 0, spread = 0;
    for (int64_t n = 0; n < s.n; n++) middle += mean[n * s.c + c];
    middle /= S(s.n);
    for (int64_t n = 0; n < s.n; n++) {
      const S apart = mean[n * s.c + c] - middle;
      spread += rstd[n * s.c + c] + apart * apart;
    }
    const S scale = S(1) / std::sqrt(spread / S(s.n) + s.eps);
    for (int64_t n = 0; n < s.n; n++) mean[n * s.c + c] = middle, rstd[n * s.c + c] = scale;
  }
}

// The mean over the batch's entries of a channel, from sums over each sample's [n, c].
template <class S>
void batch_means(const Shape<S>& s, const S* sums, S* means) {
  std::fill(means, means + s.c, S(0));
  for (int64_t n = 0; n < s.n; n++)
    for (int64_t c = 0; c < s.c; c++) means[c] += sums[n * s.c + c];
  for (int64_t c = 0; c < s.c; c++) means[c] /= S(s.n * s.pixels());
}

// How often the samples are gone through: twice where something of all of them must be known first.
template <class S>
std::vector<Steps> turns(const Shape<S>& s) {
  return s.over == kBatch ? std::vector<Steps>{kSums, kPass} : std::vector<Steps>{kBoth};
}

template <class H, class T, class S>
void forward(const Shape<S>& s, const T* x, const S* weight, const S* bias, T* out, S* mean, S* rstd, int threads) {
#pragma omp parallel num_threads(threads)
  {
    Channels<S> ch(kFree, s.c);
    if (!H::E) std::memcpy(ch[kWeight], weight, s.c * sizeof(S)), std::memcpy(ch[kBias], bias, s.c * sizeof(S));
    for (const Steps steps : turns(s)) {
#pragma omp for schedule(static)
      for (int64_t n = 0; n < s.n; n++)
        forward_sample<H>(s, x + n * s.sample(), out + n * s.pooled(H::P), ch, mean + n * s.c, rstd + n * s.c, steps);
      if (steps != kSums) continue;
#pragma omp single
      batch_statistics(s, mean, rstd);
    }
  }
}

template <class H, class T, class S>
void backward(const Shape<S>& s, const T* x, const T* grad, const S* weight, const S* bias, const S* mean,
              const S* rstd, T* by_x, S* sum1, S* sum2, int threads) {
  std::vector<S> means(s.over == kBatch ? 2 * s.c : 0);
#pragma omp parallel num_threads(threads)
  {
    Channels<S> ch(kFree + 3, s.c);
    for (const Steps steps : turns(s)) {
#pragma omp for schedule(static)
      for (int64_t n = 0; n < s.n; n++) {
        recall(ch, mean + n * s.c, rstd + n * s.c, H::E ? nullptr : weight, bias);
        backward_sample<H>(s, x + n * s.sample(), grad + n * s.pooled(H::P), by_x + n * s.sample(), ch, sum1 + n * s.c,
                           sum2 + n * s.c, steps, means.data(), means.data() + s.c);
      }
      if (steps != kSums) continue;
#pragma omp single
      batch_means(s, sum1, means.data()), batch_means(s, sum2, means.data() + s.c);
    }
  }
}

// Gradients by weights and biases per element [h, w, c], which are zero before: rows of squares, each through the batch.
template <class H, class T, class S>
void elements(const Shape<S>& s, const T* x, const T* grad, const S* mean, const S* rstd, S* by_weights, S* by_biases,
              int threads) {
  const int64_t step = H::P == kNone ? 1 : 2;
#pragma omp parallel num_threads(threads)
  {
    Channels<S> ch(kFree, s.c);
#pragma omp for schedule(static)
    for (int64_t row = 0; row < s.h; row += step)
      for (int64_t n = 0; n < s.n; n++) {
        recall<S>(ch, mean + n * s.c, rstd + n * s.c, nullptr, nullptr);
        blocks<S>(0, s.c, [&](auto v, int64_t c) {
          element_pass<H, decltype(v)>(s, x + n * s.sample(), grad + n * s.pooled(H::P), ch, c, row, by_weights,
                                       by_biases);
        });
      }
  }
}

// What a call asks for. how: groups, pooling, over, affine, activation, whether affine per element. numbers: of the
// activation, eps.
enum Asked { kGroupsOf, kPooling, kOver, kAffine, kActivation, kElements };
enum Activation { kLeaky = 0, kSmooth = 1 };

template <class S>
Shape<S> shape_of(int64_t n, int64_t h, int64_t w, int64_t c, const int64_t* how, const double* numbers) {
  return {n, h, w, c, how[kGroupsOf], Over(how[kOver]), how[kAffine] != 0, S(numbers[1]), numbers[0]};
}

// sizes: n, h, w, c, threads, how
template <class S>
Shape<S> shape_of(const int64_t* sizes, const double* numbers, const S* weight, const S* bias) {
  Shape<S> s = shape_of<S>(sizes[0], sizes[1], sizes[2], sizes[3], sizes + 5, numbers);
  s.weights = weight, s.biases = bias;
  return s;
}

// Calls body(How) for the pooling of a call.
template <bool E, class A, class F>
void with_pooling(const int64_t* how, F body) {
  if (how[kPooling] == kNone) body(How<kNone, E, A>{});
  if (how[kPooling] == kAverage) body(How<kAverage, E, A>{});
  if (how[kPooling] == kMax) body(How<kMax, E, A>{});
}

}  // namespace

// WITH<S>(how, body) calls body with the way to go, out of those a source is compiled for.
#define EXPORT_FIRST(WITH, SUFFIX, T, S)                                                                             \
  extern "C" void forward_##SUFFIX(const int64_t* sizes, const double* numbers, const T* x, const S* weight,         \
                                   const S* bias, T* out, S* mean, S* rstd) {                                        \
    const Shape<S> s = shape_of(sizes, numbers, weight, bias);                                                       \
    WITH<S>(sizes + 5, [&](auto how) {                                                                               \
      forward<decltype(how)>(s, x, weight, bias, out, mean, rstd, int(sizes[4]));                                    \
    });                                                                                                              \
  }                                                                                                                  \
  extern "C" void backward_##SUFFIX(const int64_t* sizes, const double* numbers, const T* x, const T* grad,          \
                                    const S* weight, const S* bias, const S* mean, const S* rstd, T* by_x, S* sum1,  \
                                    S* sum2) {                                                                       \
    const Shape<S> s = shape_of(sizes, numbers, weight, bias);                                                       \
    WITH<S>(sizes + 5, [&](auto how) {                                                                               \
      backward<decltype(how)>(s, x, grad, weight, bias, mean, rstd, by_x, sum1, sum2, int(sizes[4]));                \
    });                                                                                                              \
  }
