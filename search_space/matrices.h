// Convolutions of images by the processor's matrix unit for bf16 (AMX), where it has one and the system lets us.
//
// A tile of patches is 16 pixels of a row; what lies under a row of the kernel is one run in memory, and the next
// pixel's begins `in` numbers further on. So tiles are loaded from the frame as it is, three of them to a kernel.
#pragma once
#include "patches.h"

#if defined(__AMX_BF16__) && defined(__linux__)
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define MATRICES

namespace {

constexpr int kTile = 16;  // rows of a tile, and fp32 numbers in one of them

// Whether this process may use the tiles: Linux wants to be asked once.
bool has_matrices() {
  constexpr int kAsk = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool allowed = syscall(SYS_arch_prctl, kAsk, kTileData) == 0;
  return allowed;
}

// pairs of numbers under a row of the kernel: the odd one out is multiplied by zero
INLINE int64_t pairs(const Images& s) { return (3 * s.in + 1) / 2; }

// Sizes of a thread's tiles until the end of a call: 0 to 2 patches, 3 to 5 kernels, 6 sums. Then those of before are
// set again: a library that keeps its own from call to call may count on them.
class Tiles {
 public:
  explicit Tiles(const Images& s) {
    if (!has_matrices()) return;
    _tile_storeconfig(&before_);
    Sizes ours;
    ours.palette = 1;
    for (int t = 0; t < 7; t++) {
      ours.bytes[t] = t < 3 ? 4 * pairs(s) : 4 * kTile;
      ours.rows[t] = t < 3 || t > 5 ? std::min<int64_t>(kTile, s.width()) : pairs(s);
    }
    _tile_loadconfig(&ours);
  }
  Tiles(const Tiles&) = delete;
  ~Tiles() {
    if (!has_matrices()) return;
    before_.palette ? _tile_loadconfig(&before_) : _tile_release();
  }

 private:
  struct alignas(64) Sizes {
    uint8_t palette = 0, start_row = 0, none[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
  } before_;
};

INLINE int64_t rounded_frame(const Images& s) { return s.frame() + 1; }  // the last pair reads one number beyond

void round_frame(const Images& s, const float* frame, bf16* to) {
  constexpr int L = Wide<float>::lanes;
  int64_t k = 0;
  for (; k + L <= s.frame(); k += L) store(to + k, load<Floats>(frame + k));
  for (; k < s.frame(); k++) store<float>(to + k, frame[k]);
  store<float>(to + k, 0);
}

// Kernels [out, in, 3, 3] as [16 outputs][row of the kernel][pair][output][2].
void pack_rounded(const Images& s, const float* weight, bf16* to) {
  for (int64_t first = 0; first < s.out; first += kTile)
    for (int64_t row = 0; row < 3; row++)
      for (int64_t pair = 0; pair < pairs(s); pair++)
        for (int64_t o = first; o < first + kTile; o++)
          for (int64_t q = 2 * pair; q < 2 * pair + 2; q++)
            store<float>(to++, q < 3 * s.in ? weight[(o * s.in + q % s.in) * 9 + row * 3 + q / s.in] : 0);
}

// Row y of the output, [pixels, out], in fp32 from rounded numbers.
void convolve_row(const Images& s, const bf16* frame, const bf16* kernels, const float* bias, int64_t y, float* row) {
  const int64_t step = pairs(s) * 2 * kTile, pixels = s.width();
  for (int64_t block = 0; block < pixels; block += kTile) {
    const int64_t first = std::max<int64_t>(0, std::min(block, pixels - kTile));  // the last may overlap
    const bf16* patches = frame + y * s.line() + first * s.in;
    _tile_loadd(0, patches, 2 * s.in);
    _tile_loadd(1, patches + s.line(), 2 * s.in);
    _tile_loadd(2, patches + 2 * s.line(), 2 * s.in);
    const bf16* kernel = kernels;
    for (int64_t o = 0; o < s.out; o += kTile, kernel += 3 * step) {
      _tile_loadd(6, bias + o, 0);  // the same in each row
      _tile_loadd(3, kernel, 4 * kTile);
      _tile_loadd(4, kernel + step, 4 * kTile);
      _tile_loadd(5, kernel + 2 * step, 4 * kTile);
      _tile_dpbf16ps(6, 0, 3);
      _tile_dpbf16ps(6, 1, 4);
      _tile_dpbf16ps(6, 2, 5);
      _tile_stored(6, row + first * s.out + o, 4 * s.out);
    }
  }
}

}  // namespace
#endif
