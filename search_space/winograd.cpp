// 3x3 convolutions of channels-last maps (stride 1, padding 1) by Winograd's minimal filtering, and their weight gradient.
//
// A tile of the output (2x2 or 4x4 pixels) is At [(G g Gt) * (Bt d B)] A of its input d (4x4 or 6x6) and kernel g, `*`
// entry by entry (Lavin and Gray, CVPR 2016): over channels that is one matrix product for each of the 16 or 36 entries
// and takes 2.25 or 4 times fewer multiplications than the sum over nine places. The gradient by the input is the same
// with the kernel turned around and channels exchanged; that by the weight, read off the same formula, is
// Gt [sum over tiles (Bt d B) (A dy At)] G.
//
// Vectors run over channels. A thread takes so many tiles that their transforms stay in its cache, and the product of
// every entry with a panel of the transformed weights stays there too until it is turned into output. Sums run over
// channels (over tiles for the weights) in an order that depends on sizes alone, so threads change nothing.
#include <omp.h>

#include <algorithm>

#include "products.h"

namespace {

constexpr int64_t kThreadBytes = 448 << 10;        // of transformed tiles, in a thread's own cache
constexpr int64_t kSharedBytes = 4608 << 10;       // of transformed tiles of a weight gradient, in the shared cache
constexpr int64_t kFewTiles = 3;                   // a column of the weights
constexpr int64_t kBand = 48;                      // input channels that are one piece of work there

struct Sizes {
  int64_t n, h, w, in, out;
  int threads;
};

thread_local Scratch of_all, of_one;  // what the threads of a call share, what each has

// ---- the transforms of one dimension; `_t` are the transposed ones -------------------------------------------------

// 2 outputs of 4 inputs, at the points 0, 1, -1, infinity
template <class S>
struct Two {
  static constexpr int out = 2, in = 4;
  template <class V>
  static INLINE void input(const V* d, V* t) {
    t[0] = d[0] - d[2], t[1] = d[1] + d[2], t[2] = d[2] - d[1], t[3] = d[3] - d[1];
  }
  template <class V>
  static INLINE void output(const V* m, V* y) {
    y[0] = m[0] + m[1] + m[2], y[1] = m[1] - m[2] + m[3];
  }
  template <class V>
  static INLINE void output_t(const V* y, V* m) {
    m[0] = y[0], m[1] = y[0] + y[1], m[2] = y[0] - y[1], m[3] = y[1];
  }
  template <class V>
  static INLINE void kernel(const V* g, V* u) {
    const V even = (g[0] + g[2]) * S(0.5), odd = g[1] * S(0.5);
    u[0] = g[0], u[1] = even + odd, u[2] = even - odd, u[3] = g[2];
  }
  template <class V>
  static INLINE void kernel_t(const V* u, V* g) {
    const V sum = (u[1] + u[2]) * S(0.5);
    g[0] = u[0] + sum, g[1] = (u[1] - u[2]) * S(0.5), g[2] = sum + u[3];
  }
};

// 4 outputs of 6 inputs, at the points 0, a, -a, b, -b, infinity; 3/4 and 3/2 round less than the usual 1 and 2
template <class S>
struct Four {
  static constexpr int out = 4, in = 6;
  static constexpr S a = 0.75, b = 1.5, a2 = a * a, b2 = b * b;
  static constexpr S scale_0 = 1 / (a2 * b2), scale_a = 1 / (2 * a2 * (a2 - b2)), scale_b = 1 / (2 * b2 * (b2 - a2));

  template <class V>
  static INLINE void pair(V even, V odd, V* to) {
    to[0] = even + odd, to[1] = even - odd;
  }
  template <class V>
  static INLINE void input(const V* d, V* t) {
    t[0] = d[4] - d[2] * (a2 + b2) + d[0] * (a2 * b2);
    pair(d[4] - d[2] * b2, (d[3] - d[1] * b2) * a, t + 1);
    pair(d[4] - d[2] * a2, (d[3] - d[1] * a2) * b, t + 3);
    t[5] = d[5] - d[3] * (a2 + b2) + d[1] * (a2 * b2);
  }
  template <class V>
  static INLINE void output(const V* m, V* y) {
    const V sum_a = m[1] + m[2], sum_b = m[3] + m[4], odd_a = m[1] - m[2], odd_b = m[3] - m[4];
    y[0] = m[0] + sum_a + sum_b;
    y[1] = odd_a * a + odd_b * b;
    y[2] = sum_a * a2 + sum_b * b2;
    y[3] = odd_a * (a * a2) + odd_b * (b * b2) + m[5];
  }
  template <class V>
  static INLINE void output_t(const V* y, V* m) {
    m[0] = y[0];
    pair(y[0] + y[2] * a2, y[1] * a + y[3] * (a * a2), m + 1);
    pair(y[0] + y[2] * b2, y[1] * b + y[3] * (b * b2), m + 3);
    m[5] = y[3];
  }
  template <class V>
  static INLINE void kernel(const V* g, V* u) {
    u[0] = g[0] * scale_0;
    pair((g[0] + g[2] * a2) * scale_a, g[1] * (a * scale_a), u + 1);
    pair((g[0] + g[2] * b2) * scale_b, g[1] * (b * scale_b), u + 3);
    u[5] = g[2];
  }
  template <class V>
  static INLINE void kernel_t(const V* u, V* g) {
    const V sum_a = (u[1] + u[2]) * scale_a, sum_b = (u[3] + u[4]) * scale_b;
    g[0] = u[0] * scale_0 + sum_a + sum_b;
    g[1] = (u[1] - u[2]) * (a * scale_a) + (u[3] - u[4]) * (b * scale_b);
    g[2] = sum_a * a2 + sum_b * b2 + u[5];
  }
};

// `f` along the columns, then along the rows, of entry(row, column), giving result(row, column, value).
template <int From, int To, class V, class F, class Entry, class Result>
INLINE void both_ways(F f, Entry entry, Result result) {
  V half[From][To];
  for (int x = 0; x < From; x++) {
    V column[From];
    for (int y = 0; y < From; y++) column[y] = entry(y, x);
    f(column, half[x]);
  }
  for (int y = 0; y < To; y++) {
    V row[From], done[To];
    for (int x = 0; x < From; x++) row[x] = half[x][y];
    f(row, done);
    for (int x = 0; x < To; x++) result(y, x, done[x]);
  }
}

// ---- tiles ----------------------------------------------------------------------------------------------------------

template <class F>
struct Tiles {
  int64_t down, across, all;
  explicit Tiles(const Sizes& s)
      : down((s.h + F::out - 1) / F::out), across((s.w + F::out - 1) / F::out), all(s.n * down * across) {}
  struct Place {
    int64_t image, y, x;  // of the tile's first output pixel
  };
  INLINE Place at(int64_t tile) const {
    const int64_t in_image = tile % (down * across);
    return {tile / (down * across), in_image / across * F::out, in_image % across * F::out};
  }
};

// Bt d B of a tile's input to [entry][stride]; d is 0 outside the map
template <class F, class S, class T>
INLINE void transform_input(const Sizes& s, const T* maps, typename Tiles<F>::Place tile, S* to, int64_t stride) {
  typedef typename Wide<S>::type V;
  const T* map = maps + tile.image * s.h * s.w * s.in;
  const int64_t y0 = tile.y - 1, x0 = tile.x - 1;
  const bool inside = y0 >= 0 && x0 >= 0 && y0 + F::in <= s.h && x0 + F::in <= s.w;
  for (int64_t c = 0; c < s.in; c += Wide<S>::lanes)
    both_ways<F::in, F::in, V>(
        [](const V* d, V* t) { F::input(d, t); },
        [&](int i, int j) {
          const int64_t y = y0 + i, x = x0 + j;
          const bool there = inside || (y >= 0 && y < s.h && x >= 0 && x < s.w);
          return there ? load<V>(map + (y * s.w + x) * s.in + c) : V{};
        },
        [&](int i, int j, V value) { store(to + (i * F::in + j) * stride + c, value); });
}

// A dy At of some vectors of a tile's output gradient to [entry][stride]
template <class F, class S, class T>
INLINE void transform_gradient(const Sizes& s, const T* maps, typename Tiles<F>::Place tile, int64_t first, int vectors,
                               S* to, int64_t stride) {
  typedef typename Wide<S>::type V;
  constexpr int L = Wide<S>::lanes;
  const T* map = maps + ((tile.image * s.h + tile.y) * s.w + tile.x) * s.out + first;
  for (int v = 0; v < vectors; v++) {
    V half[F::out][F::in];
    for (int x = 0; x < F::out; x++) {
      V column[F::out];
      for (int y = 0; y < F::out; y++)
        column[y] = tile.y + y < s.h && tile.x + x < s.w ? load<V>(map + (y * s.w + x) * s.out + v * L) : V{};
      F::output_t(column, half[x]);
    }
    for (int i = 0; i < F::in; i++) {
      V row[F::out], done[F::in];
      for (int x = 0; x < F::out; x++) row[x] = half[x][i];
      F::output_t(row, done);
      for (int j = 0; j < F::in; j++) store(to + (i * F::in + j) * stride + v * L, done[j]);
    }
  }
}

// At m A of some vectors of a tile, m at [entry][stride], to its place in the output
template <class F, class S, class T>
INLINE void write_output(const Sizes& s, const S* m, int64_t stride, typename Tiles<F>::Place tile, const S* bias,
                         int64_t first, int vectors, T* maps) {
  typedef typename Wide<S>::type V;
  constexpr int L = Wide<S>::lanes;
  T* map = maps + ((tile.image * s.h + tile.y) * s.w + tile.x) * s.out + first;
  for (int v = 0; v < vectors; v++) {
    const V shift = bias ? load<V>(bias + first + v * L) : V{};
    V half[F::in][F::out];
    for (int j = 0; j < F::in; j++) {
      V column[F::in];
      for (int i = 0; i < F::in; i++) column[i] = load<V>(m + (i * F::in + j) * stride + v * L);
      F::output(column, half[j]);
    }
    for (int y = 0; y < F::out; y++) {
      V row[F::in], done[F::out];
      for (int j = 0; j < F::in; j++) row[j] = half[j][y];
      F::output(row, done);
      for (int x = 0; x < F::out; x++)
        if (tile.y + y < s.h && tile.x + x < s.w) store(map + (y * s.w + x) * s.out + v * L, done[x] + shift);
    }
  }
}

// Kernels of L columns and of L rows of the product's depth from row k on, as [row][place][column].
// turned: the convolution of an output's gradient, whose columns are the weight's input channels.
template <class S>
INLINE void gather_kernels(const Sizes& s, const S* weight, bool turned, int64_t column, int64_t k, S* to) {
  typedef typename Wide<S>::type V;
  constexpr int L = Wide<S>::lanes;
  V rows[L];
  if (!turned) {  // 9 L numbers of each column lie together
    for (int part = 0; part < 9; part++) {
      for (int l = 0; l < L; l++) rows[l] = load<V>(weight + ((column + l) * s.in + k) * 9 + part * L);
      transpose<S>(rows);
      for (int l = 0; l < L; l++) store(to + (part * L + l) * L, rows[l]);
    }
    return;
  }
  for (int r = 0; r < L; r++) {  // those of each row do; what is read beyond a kernel is not used
    S together[9 * L + L];
    std::memcpy(together, weight + ((k + r) * s.out + column) * 9, 9 * L * sizeof(S));
    for (int half = 0; half < 9; half += L) {
      for (int l = 0; l < L; l++) rows[l] = load<V>(together + l * 9 + half);
      transpose<S>(rows);
      for (int q = half; q < 9 && q < half + L; q++) store(to + (r * 9 + 8 - q) * L, rows[q - half]);
    }
  }
}

// G g Gt of weights [out, in, 3, 3], some columns and rows of the product's depth, to [entry][panel][depth][width].
template <class F, class S>
void transform_weights(const Sizes& s, const S* weight, bool turned, Range columns, Range depth, S* to,
                       int64_t stride) {
  typedef typename Wide<S>::type V;
  constexpr int L = Wide<S>::lanes;
  panels<S>(columns.begin, columns.end, [&](int64_t first, int vectors) {
    for (int64_t k = depth.begin; k < depth.end; k += L)
      for (int v = 0; v < vectors; v++) {
        S kernels[9 * L * L];
        gather_kernels(s, weight, turned, first + v * L, k, kernels);
        for (int r = 0; r < L; r++) {
          S* place = to + first * s.in + ((k + r) * vectors + v) * L;
          both_ways<3, F::in, V>([](const V* g, V* u) { F::kernel(g, u); },
                                 [&](int y, int x) { return load<V>(kernels + (r * 9 + y * 3 + x) * L); },
                                 [&](int i, int j, V value) { store(place + (i * F::in + j) * stride, value); });
        }
      }
  });
}

// ---- what is called -------------------------------------------------------------------------------------------------

// Distance of the entries of a transform. Entries are written one after another: a line more than a round number of
// bytes keeps them from falling into the same places of the cache.
template <class S>
INLINE int64_t apart(int64_t count) {
  return count + 64 / sizeof(S);
}

template <class F, class S, class T>
void convolve(const Sizes& s, const T* x, const S* weight, const S* bias, T* out, bool turned) {
  constexpr int P = F::in * F::in, L = Wide<S>::lanes, kPanel = kVectors * L;
  const Tiles<F> tiles(s);
  // Few tiles: every thread takes columns and transforms only their weights, but all inputs, which is less than what
  // sharing the weights between the cores' caches costs. Many: every thread takes tiles.
  const bool by_column = tiles.all <= kFewTiles * s.out && s.out >= kPanel * s.threads;
  const int64_t most = std::max<int64_t>(kThreadBytes / (P * s.in * sizeof(S)) / kRows, 1) * kRows;
  const int64_t sharing = by_column ? 1 : s.threads, turns = (tiles.all + most * sharing - 1) / (most * sharing);
  const int64_t chunk = (tiles.all + turns * sharing - 1) / (turns * sharing);
  const int64_t of_weights = apart<S>(s.in * s.out), of_inputs = apart<S>(chunk * s.in);
  const int64_t of_products = apart<S>(chunk * kPanel);
  S* weights = of_all.get<S>(P * of_weights);  // [entry][panel][depth][panel's width]
  int64_t next = 0;
#pragma omp parallel num_threads(s.threads)
  {
    const int me = omp_get_thread_num(), all = omp_get_num_threads();
    const Range whole{0, s.out}, columns = by_column ? Range::share(s.out, kPanel, me, all) : whole;
    const Range depth = by_column ? Range{0, s.in} : Range::share(s.in, L, me, all);
    S* inputs = of_one.get<S>(P * (of_inputs + of_products));  // [entry][tile][in]
    S* products = inputs + P * of_inputs;                      // [entry][tile][panel's width]
    transform_weights<F>(s, weight, turned, columns, depth, weights, of_weights);
    const auto work = [&](int64_t first) {
      const int64_t count = std::min(chunk, tiles.all - first);
      for (int64_t t = 0; t < count; t++)
        transform_input<F>(s, x, tiles.at(first + t), inputs + t * s.in, of_inputs);
      panels<S>(columns.begin, columns.end, [&](int64_t column, int vectors) {
        const int64_t width = vectors * L;
        for (int p = 0; p < P; p++)
          product<kZero>(vectors, Linear<S>{inputs + p * of_inputs, s.in, 1},
                         Right<S>{weights + p * of_weights + column * s.in, width},
                         Result<S>{products + p * of_products, width}, count, s.in);
        for (int64_t t = 0; t < count; t++)
          write_output<F>(s, products + t * width, of_products, tiles.at(first + t), bias, column, vectors, out);
      });
    };
    if (by_column) {
      for (int64_t first = 0; first < tiles.all; first += chunk) work(first);
    } else {
#pragma omp barrier
      for (;;) {
        int64_t first;
#pragma omp atomic capture
        {
          first = next;
          next += chunk;
        }
        if (first >= tiles.all) break;
        work(first);
      }
    }
  }
}

template <class F, class S, class T>
void weight_gradient(const Sizes& s, const T* x, const T* grad, S* by_weight) {
  typedef typename Wide<S>::type V;
  constexpr int P = F::in * F::in, L = Wide<S>::lanes;
  const Tiles<F> tiles(s);
  const int64_t fit = std::max<int64_t>(kSharedBytes / (P * (s.in + s.out) * sizeof(S)), 16);
  const int64_t block = std::min(tiles.all, fit);
  const int64_t of_inputs = apart<S>(block * s.in), of_gradients = apart<S>(block * s.out);
  const int64_t of_sums = apart<S>(s.in * s.out);
  S* inputs = of_all.get<S>(P * (of_inputs + of_gradients + of_sums));  // [entry][tile][in]
  S* gradients = inputs + P * of_inputs;                                // [entry][panel][tile][panel's width]
  S* sums = gradients + P * of_gradients;                               // [entry][in][out]
  const int64_t bands = (s.in + kBand - 1) / kBand;
#pragma omp parallel num_threads(s.threads)
  {
    for (int64_t first = 0; first < tiles.all; first += block) {
      const int64_t count = std::min(block, tiles.all - first);
#pragma omp for schedule(static)
      for (int64_t t = 0; t < count; t++) {
        const auto tile = tiles.at(first + t);
        transform_input<F>(s, x, tile, inputs + t * s.in, of_inputs);
        panels<S>(0, s.out, [&](int64_t column, int vectors) {
          transform_gradient<F>(s, grad, tile, column, vectors, gradients + column * block + t * vectors * L,
                                of_gradients);
        });
      }
#pragma omp for collapse(2) schedule(static)
      for (int p = 0; p < P; p++)
        for (int64_t band = 0; band < bands; band++) {
          const int64_t i = band * kBand, rows = std::min(kBand, s.in - i);
          const Linear<S> left{inputs + p * of_inputs + i, 1, s.in};
          panels<S>(0, s.out, [&](int64_t column, int vectors) {
            const Right<S> right{gradients + p * of_gradients + column * block, vectors * L};
            const Result<S> to{sums + p * of_sums + i * s.out + column, s.out};
            if (first)
              product<kThere>(vectors, left, right, to, rows, count);
            else
              product<kZero>(vectors, left, right, to, rows, count);
          });
        }
    }
#pragma omp for collapse(2) schedule(static)
    for (int64_t o = 0; o < s.out; o += L)
      for (int64_t i = 0; i < s.in; i++)
        both_ways<F::in, 3, V>([](const V* u, V* g) { F::kernel_t(u, g); },
                               [&](int y, int x) { return load<V>(sums + (y * F::in + x) * of_sums + i * s.out + o); },
                               [&](int y, int x, V value) {
                                 for (int l = 0; l < L; l++) by_weight[((o + l) * s.in + i) * 9 + y * 3 + x] = value[l];
                               });
  }
}

}  // namespace

// sizes: n, h, w, channels that are summed over, channels of the result, threads, pixels of a tile's side (2 or 4),
// turned. For the weight gradient the channels are those of x and of grad.
#define EXPORT(SUFFIX, T, S)                                                                                      \
  extern "C" void convolve_##SUFFIX(const int64_t* sizes, const T* x, const S* weight, const S* bias, T* out) {   \
    const Sizes s{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], int(sizes[5])};                               \
    const auto way = sizes[6] == 4 ? convolve<Four<S>, S, T> : convolve<Two<S>, S, T>;                            \
    way(s, x, weight, bias, out, sizes[7] != 0);                                                                  \
  }                                                                                                               \
  extern "C" void weight_gradient_##SUFFIX(const int64_t* sizes, const T* x, const T* grad, S* by_weight) {       \
    const Sizes s{sizes[0], sizes[1], sizes[2], sizes[3], sizes[4], int(sizes[5])};                               \
    const auto way = sizes[6] == 4 ? weight_gradient<Four<S>, S, T> : weight_gradient<Two<S>, S, T>;              \
    way(s, x, grad, by_weight);                                                                                   \
  }

EXPORT(float32, float, float)
EXPORT(float64, double, double)
EXPORT(bfloat16, bf16, float)

// whether the processor multiplies matrices of bf16 in hardware of its own
extern "C" int has_bf16_matrices() {
#ifdef __AMX_BF16__
  return 1;
#else
  return 0;
#endif
}
