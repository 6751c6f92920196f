// Patches of maps with few channels (images): what lies under the 3x3 places of a convolution.
//
// An image is copied once into a frame of zeros, channels last, [h + 2 padding, w + 2 padding, in]. There the 9 in
// places of a patch are at the same distances from its first one whatever the pixel, so that a row of output pixels is
// patches [pixels, 9 in] times the kernels without a copy of the patches.
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
  INLINE int64_t line() const { return (w + 2 * padding) * in; }
  INLINE int64_t frame() const { return (h + 2 * padding) * line(); }
  INLINE int64_t places() const { return 9 * in; }
  // sizes: n, in, h, w, strides of x, out, padding, threads
  static INLINE Images of(const int64_t* z) {
    return {z[0], z[1], z[2], z[3], z[4], z[5], z[6], z[7], z[8], z[9], int(z[10])};
  }
};

// Distances of a patch's places in a frame, row by row, pixel by pixel, channel by channel, and where they are in a
// kernel [in, 3, 3].
struct Places {
  std::vector<int64_t> in_frame, in_kernel;
  explicit Places(const Images& s) {
    for (int64_t q = 0; q < s.places(); q++) {
      in_frame.push_back(q / (3 * s.in) * s.line() + q % (3 * s.in));
      in_kernel.push_back(q % s.in * 9 + q / s.in);
    }
  }
};

template <class S>
void fill_frame(const Images& s, const S* x, int64_t image, S* frame) {
  std::fill(frame, frame + s.frame(), S(0));
  for (int64_t c = 0; c < s.in; c++)
    for (int64_t y = 0; y < s.h; y++) {
      const S* row = x + image * s.by_image + c * s.by_channel + y * s.by_row;
      S* to = frame + (y + s.padding) * s.line() + s.padding * s.in + c;
      for (int64_t p = 0; p < s.w; p++) to[p * s.in] = row[p * s.by_pixel];
    }
}

// Kernels [out, in, 3, 3] as the right side of patches' product: [panel][place][panel's width].
template <class S>
void pack_kernels(const Images& s, const Places& places, const S* weight, S* to) {
  panels<S>(0, s.out, [&](int64_t column, int vectors) {
    const int64_t width = vectors * Wide<S>::lanes;
    for (int64_t q = 0; q < s.places(); q++)
      for (int64_t o = 0; o < width; o++)
        to[column * s.places() + q * width + o] = weight[(column + o) * s.places() + places.in_kernel[q]];
  });
}

// Row y of the output, [pixels, out], from a frame.
template <class S>
void convolve_row(const Images& s, const Places& places, const S* frame, const S* kernels, const S* bias, int64_t y,
                  S* row) {
  const ListedDepth<S> patches{frame + y * s.line(), s.in, places.in_frame.data()};
  panels<S>(0, s.out, [&](int64_t column, int vectors) {
    const Right<S> panel{kernels + column * s.places(), vectors * Wide<S>::lanes};
    const Result<S> to{row + column, s.out, bias + column};
    product<kRow>(vectors, patches, panel, to, s.width(), s.places());
  });
}

// What row y of the output's gradient adds to the gradient of the kernels and of the bias, [9 in + 1, out].
template <class S>
void add_weight_gradient(const Images& s, const Places& places, const S* frame, const S* row, int64_t y, S* sum) {
  typedef typename Wide<S>::type V;
  const ListedRows<S> patches{frame + y * s.line(), places.in_frame.data(), s.in};
  panels<S>(0, s.out, [&](int64_t column, int vectors) {
    const Right<S> panel{row + column, s.out};
    product<kThere>(vectors, patches, panel, Result<S>{sum + column, s.out}, s.places(), s.width());
  });
  S* bias = sum + s.places() * s.out;
  for (int64_t o = 0; o < s.out; o += Wide<S>::lanes) {
    V total = load<V>(bias + o);
    for (int64_t p = 0; p < s.width(); p++) total += load<V>(row + p * s.out + o);
    store(bias + o, total);
  }
}

constexpr int kGroups = 16;  // of images whose weight gradients are added one after another: whatever the threads

// The images of a group.
INLINE Range group_of(const Images& s, int64_t group, int64_t groups) {
  return {s.n * group / groups, s.n * (group + 1) / groups};
}

// Sums [group][9 in + 1][out] to the gradients of weight [out, in, 3, 3] and bias.
template <class S>
void gather_weight_gradient(const Images& s, const Places& places, S* sums, int64_t groups, S* by_weight, S* by_bias) {
  const int64_t size = (s.places() + 1) * s.out;
  for (int64_t group = 1; group < groups; group++)
    for (int64_t k = 0; k < size; k++) sums[k] += sums[group * size + k];
  for (int64_t o = 0; o < s.out; o++) {
    for (int64_t q = 0; q < s.places(); q++) by_weight[o * s.places() + places.in_kernel[q]] = sums[q * s.out + o];
    by_bias[o] = sums[s.places() * s.out + o];
  }
}

}  // namespace
