// Vectors as wide as the machine's, of what is computed in, loaded from and stored as what is kept in memory.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define INLINE inline __attribute__((always_inline))

namespace {

constexpr int kBytes = VECTOR_BYTES;

struct bf16 {
  uint16_t bits;
};

template <class S>
struct Wide {
  static constexpr int lanes = kBytes / sizeof(S);
  typedef S type __attribute__((vector_size(kBytes)));
};

// A vector of V lanes (or one number) in memory, in the type it is computed in.
template <class V, class T>
INLINE V load(const T* from) {
  V value;
  std::memcpy(&value, from, sizeof(V));
  return value;
}
template <class V, class T>
INLINE void store(T* to, V value) {
  std::memcpy(to, &value, sizeof(V));
}

typedef uint32_t Words __attribute__((vector_size(kBytes)));
typedef uint16_t Halves __attribute__((vector_size(kBytes / 2)));
typedef Wide<float>::type Floats;

template <>
INLINE Floats load<Floats, bf16>(const bf16* from) {
  Halves half;
  std::memcpy(&half, from, sizeof(half));
  return (Floats)(__builtin_convertvector(half, Words) << 16);
}
template <>
INLINE void store<Floats, bf16>(bf16* to, Floats value) {
  Words word = (Words)value;
  Words rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
  rounded = (Words)(value == value) ? rounded : (Words{} + 0x7fc0);
  Halves half = __builtin_convertvector(rounded, Halves);
  std::memcpy(to, &half, sizeof(half));
}
template <>
INLINE float load<float, bf16>(const bf16* from) {
  uint32_t word = uint32_t(from->bits) << 16;
  float value;
  std::memcpy(&value, &word, 4);
  return value;
}
template <>
INLINE void store<float, bf16>(bf16* to, float value) {
  uint32_t word;
  std::memcpy(&word, &value, 4);
  to->bits = value == value ? uint16_t((word + 0x7fff + ((word >> 16) & 1)) >> 16) : uint16_t(0x7fc0);
}

template <class V, class S>
INLINE V spread(S value) {
  return V{} + value;
}

// Rows i and i + Step of a block exchange the lanes whose number has the bit Step unlike the row's.
template <int Step, class V, class W, size_t... J>
INLINE void exchange(V& a, V& b, W, std::index_sequence<J...>) {
  constexpr int L = sizeof...(J);
#ifdef __clang__
  const V low = __builtin_shufflevector(a, b, (J & Step ? L + J - Step : J)...);
  const V high = __builtin_shufflevector(a, b, (J & Step ? L + J : J + Step)...);
#else
  const V low = __builtin_shuffle(a, b, W{(J & Step ? L + J - Step : J)...});
  const V high = __builtin_shuffle(a, b, W{(J & Step ? L + J : J + Step)...});
#endif
  a = low, b = high;
}

// The block [L][L] of which each vector is a row, turned over.
template <class S, int Step = 1>
INLINE void transpose(typename Wide<S>::type* rows) {
  constexpr int L = Wide<S>::lanes;
  if constexpr (Step < L) {
    typedef std::conditional_t<sizeof(S) == 4, int32_t, int64_t> Index;
    typedef Index Lanes __attribute__((vector_size(kBytes)));
    for (int i = 0; i < L; i++)
      if (!(i & Step)) exchange<Step>(rows[i], rows[i + Step], Lanes{}, std::make_index_sequence<L>{});
    transpose<S, 2 * Step>(rows);
  }
}

}  // namespace

// how many numbers of so many bytes a vector holds
extern "C" int lanes(int bytes) { return kBytes / bytes; }
