// Patches of maps with few channels (images): what lies under the 3x3 places of a convolution.
//
// A patch holds the 9 places of every input channel under an output pixel, and a one for the bias: [9 in + 1] numbers,
// so that a row of output pixels is patches [pixels, 9 in + 1] times the kernels. Patches of one row of pixels at a time
// stay in the cache.
#pragma once
#include "products.h"

namespace {

struct Images {
  int64_t n, in, h, w;                             // of the input
  int64_t by_image, by_channel, by_row, by_pixel;  // its strides
  int64_t out, padding;
  int threads;
  INLINE int64_t height() const { return h + 2 * padding - 2; }
  INLINE int64_t width() const { return w + 2 * padding - 2; }
  INLINE int64_t padded() const { return w + 2 * padding; }
  INLINE int64_t places() const { return 9 * in; }
  INLINE int64_t patch() const { return 9 * in + 1; }
  INLINE int64_t strip() const { return 3 * padded() * in; }  // three rows of the input, with the padding
};

// Patches [pixels, 9 in + 1] of row y of the output; a patch's places go row by row, pixel by pixel, channel by channel.
template <int In, class S>
INLINE void fill_patches(const Images& s, const S* x, int64_t image, int64_t y, S* strip, S* to) {
  const int64_t in = In ? In : s.in, line = s.padded() * in, run = 3 * in, patch = 3 * run + 1;
  for (int64_t row = 0; row < 3; row++) {
    const int64_t from = y - s.padding + row;
    S* at = strip + row * line;
    std::fill(at, at + line, S(0));
    if (from < 0 || from >= s.h) continue;
    for (int64_t c = 0; c < in; c++) {
      const S* pixels = x + image * s.by_image + c * s.by_channel + from * s.by_row;
      for (int64_t p = 0; p < s.w; p++) at[(p + s.padding) * in + c] = pixels[p * s.by_pixel];
    }
  }
  for (int64_t p = 0; p < s.width(); p++) {
    S* one = to + p * patch;
    for (int64_t row = 0; row < 3; row++) {
      const S* from = strip + row * line + p * in;
      for (int64_t q = 0; q < run; q++) one[row * run + q] = from[q];
    }
    one[3 * run] = S(1);
  }
}

// The same with the usual numbers of channels known to the compiler.
template <class S>
INLINE void fill(const Images& s, const S* x, int64_t image, int64_t y, S* strip, S* to) {
  if (s.in == 3) return fill_patches<3>(s, x, image, y, strip, to);
  if (s.in == 1) return fill_patches<1>(s, x, image, y, strip, to);
  fill_patches<0>(s, x, image, y, strip, to);
}

// Where place q of a patch lies in a kernel [in, 3, 3].
INLINE int64_t in_kernel(const Images& s, int64_t q) { return q % s.in * 9 + q / s.in; }

// Kernels [out, in, 3, 3] and bias as the right side of patches' product: [panel][patch][panel's width].
template <class S>
void pack_kernels(const Images& s, const S* weight, const S* bias, S* to) {
  panels<S>(0, s.out, [&](int64_t column, int vectors) {
    const int64_t width = vectors * Wide<S>::lanes;
    S* panel = to + column * s.patch();
    for (int64_t o = 0; o < width; o++) {
      for (int64_t q = 0; q < s.places(); q++) panel[q * width + o] = weight[(column + o) * s.places() + in_kernel(s, q)];
      panel[s.places() * width + o] = bias ? bias[column + o] : S(0);
    }
  });
}

// A row of the output, [pixels, out].
template <class S>
void convolve_row(const Images& s, const S* patches, const S* kernels, S* row) {
  panels<S>(0, s.out, [&](int64_t column, int vectors) {
    product<false>(vectors, patches, s.patch(), 1, kernels + column * s.patch(), vectors * Wide<S>::lanes, row + column,
                   s.out, s.width(), s.patch());
  });
}

// What a row of the output's gradient adds to the gradient [patch, out] of kernels and bias.
template <class S>
void add_weight_gradient(const Images& s, const S* patches, const S* grad, S* sum) {
  panels<S>(0, s.out, [&](int64_t column, int vectors) {
    product<true>(vectors, patches, 1, s.patch(), grad + column, s.out, sum + column, s.out, s.patch(), s.width());
  });
}

constexpr int kGroups = 16;  // of images whose weight gradients are added one after another: whatever the threads

// The images of a group.
INLINE Range group_of(const Images& s, int64_t group, int64_t groups) {
  return {s.n * group / groups, s.n * (group + 1) / groups};
}

// Sums [group][patch][out] to the gradients of weight [out, in, 3, 3] and bias.
template <class S>
void gather_weight_gradient(const Images& s, S* sums, int64_t groups, S* by_weight, S* by_bias) {
  const int64_t size = s.patch() * s.out;
  for (int64_t group = 1; group < groups; group++)
    for (int64_t k = 0; k < size; k++) sums[k] += sums[group * size + k];
  for (int64_t o = 0; o < s.out; o++) {
    for (int64_t q = 0; q < s.places(); q++) by_weight[o * s.places() + in_kernel(s, q)] = sums[q * s.out + o];
    by_bias[o] = sums[s.places() * s.out + o];
  }
}

INLINE Images images_of(const int64_t* z) {
  return {z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7], z[8], z[9], int(z[10])};
}

}  // namespace
