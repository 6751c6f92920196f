// A network's first block at once: 3x3 convolution of images, norm, activation and pooling, with first derivatives.
//
// The convolution's output is four times as large as what leaves the block, and writing and reading it takes as long as
// computing it. Here it lives for one image, in a core's cache, and is computed a second time for the derivatives, which
// replace it there before they are summed into the kernels' gradient.
#pragma once
#include "matrices.h"
#include "norm_act_pool_batch.h"

namespace {
namespace image_block {

thread_local Scratch of_all, of_one;  // what the threads of a call share, what each has

// An image's frame and the convolution's output, [row][pixel][out]; T: what leaves the block.
template <class T, class S>
struct Image {
  S *frame, *maps, *more;
  explicit Image(const Images& s, int64_t room = 0) {
    const int64_t size = s.height() * s.width() * s.out;
    frame = of_one.get<S>(s.frame() + size + room);
    maps = frame + s.frame(), more = maps + size;
  }
  static void pack(const Images& s, const Places& places, const S* weight, S* kernels) {
    pack_kernels(s, places, weight, kernels);
  }
  void convolve(const Images& s, const Places& places, const S* x, int64_t image, const S* kernels, const S* bias) {
    fill_frame(s, x, image, frame);
    for (int64_t y = 0; y < s.height(); y++)
      convolve_row(s, places, frame, kernels, bias, y, maps + y * s.width() * s.out);
  }
};

#ifdef MATRICES
// In bf16, where the matrix unit may be used; kernels are packed for it then.
template <>
struct Image<bf16, float> : Image<float, float> {
  typedef Image<float, float> Plain;
  const Tiles tiles;
  explicit Image(const Images& s) : Plain(s, rounded_frame(s) / 2 + 1), tiles(s) {}
  static void pack(const Images& s, const Places& places, const float* weight, float* kernels) {
    if (!has_matrices()) return Plain::pack(s, places, weight, kernels);
    pack_rounded(s, weight, (bf16*)kernels);
  }
  void convolve(const Images& s, const Places& places, const float* x, int64_t image, const float* kernels,
                const float* bias) {
    if (!has_matrices()) return Plain::convolve(s, places, x, image, kernels, bias);
    bf16* rounded = (bf16*)more;
    fill_frame(s, x, image, frame);
    round_frame(s, frame, rounded);
    for (int64_t y = 0; y < s.height(); y++)
      convolve_row(s, rounded, (const bf16*)kernels, bias, y, maps + y * s.width() * s.out);
  }
};
#endif

template <class H, class T, class S>
void forward(const Images& s, const Shape<S>& shape, const S* x, const S* weight, const S* bias, const S* norm_weight,
             const S* norm_bias, T* out, S* mean, S* rstd) {
  const int64_t pooled = shape.pooled(H::P);
  const Places places(s);
  S* kernels = of_all.get<S>(s.places() * s.out);
  Image<T, S>::pack(s, places, weight, kernels);
#pragma omp parallel num_threads(s.threads)
  {
    Channels<S> ch(kFree, s.out);
    std::memcpy(ch[kWeight], norm_weight, s.out * sizeof(S)), std::memcpy(ch[kBias], norm_bias, s.out * sizeof(S));
    Image<T, S> image(s);
#pragma omp for schedule(static)
    for (int64_t n = 0; n < s.n; n++) {
      image.convolve(s, places, x, n, kernels, bias);
      forward_sample<H>(shape, (const S*)image.maps, out + n * pooled, ch, mean + n * s.out, rstd + n * s.out);
    }
  }
}

template <class H, class T, class S>
void backward(const Images& s, const Shape<S>& shape, const S* x, const S* weight, const S* bias, const S* norm_weight,
              const S* norm_bias, const T* grad, const S* mean, const S* rstd, S* by_weight, S* by_bias, S* sum1,
              S* sum2) {
  const int64_t pooled = shape.pooled(H::P), size = (s.places() + 1) * s.out;
  const int64_t groups = std::min<int64_t>(s.n, kGroups);
  const Places places(s);
  S* kernels = of_all.get<S>((groups + 1) * size);
  S* sums = kernels + size;  // [group][9 in + 1][out]
  Image<T, S>::pack(s, places, weight, kernels);
#pragma omp parallel num_threads(s.threads)
  {
    Channels<S> ch(kFree + 3, s.out);
    Image<T, S> image(s);
#pragma omp for schedule(static)
    for (int64_t group = 0; group < groups; group++) {
      S* sum = sums + group * size;
      std::fill(sum, sum + size, S(0));
      const Range images = group_of(s, group, groups);
      for (int64_t n = images.begin; n < images.end; n++) {
        image.convolve(s, places, x, n, kernels, bias);
        recall(ch, mean + n * s.out, rstd + n * s.out, norm_weight, norm_bias);
        backward_sample<H>(shape, (const S*)image.maps, grad + n * pooled, image.maps, ch, sum1 + n * s.out,
                           sum2 + n * s.out);
        for (int64_t y = 0; y < s.height(); y++)
          add_weight_gradient(s, places, (const S*)image.frame, image.maps + y * s.width() * s.out, y, sum);
      }
    }
  }
  gather_weight_gradient(s, places, sums, groups, by_weight, by_bias);
}

}  // namespace image_block
}  // namespace

// sizes: those of patches.h, how
#define EXPORT_BLOCK(WITH, SUFFIX, T, S)                                                                             \
  extern "C" void image_block_forward_##SUFFIX(const int64_t* sizes, const double* numbers, const S* x,              \
                                               const S* weight, const S* bias, const S* norm_weight,                 \
                                               const S* norm_bias, T* out, S* mean, S* rstd) {                       \
    const Images s = Images::of(sizes);                                                                              \
    const auto shape = shape_of<S>(s.n, s.height(), s.width(), s.out, sizes + 11, numbers);                          \
    WITH<S>(sizes + 11, [&](auto how) {                                                                              \
      image_block::forward<decltype(how)>(s, shape, x, weight, bias, norm_weight, norm_bias, out, mean, rstd);       \
    });                                                                                                              \
  }                                                                                                                  \
  extern "C" void image_block_backward_##SUFFIX(                                                                     \
      const int64_t* sizes, const double* numbers, const S* x, const S* weight, const S* bias, const S* norm_weight, \
      const S* norm_bias, const T* grad, const S* mean, const S* rstd, S* by_weight, S* by_bias, S* sum1, S* sum2) { \
    const Images s = Images::of(sizes);                                                                              \
    const auto shape = shape_of<S>(s.n, s.height(), s.width(), s.out, sizes + 11, numbers);                          \
    WITH<S>(sizes + 11, [&](auto how) {                                                                              \
      image_block::backward<decltype(how)>(s, shape, x, weight, bias, norm_weight, norm_bias, grad, mean, rstd,      \
                                           by_weight, by_bias, sum1, sum2);                                          \
    });                                                                                                              \
  }
