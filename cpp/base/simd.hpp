// Eight doubles (or 64-bit words) that move together: one replica, or one component, per lane. A
// pack is made of as many of the target's vector registers as it needs. Elementary functions are
// accurate to about one unit in the last place on the ranges stated.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__) || defined(__AVX__)
#include <immintrin.h>
#endif

namespace overparam {

constexpr int LANES = 8;
#if defined(__AVX512F__)
constexpr int REGISTER_BYTES = 64;
#elif defined(__AVX__)
constexpr int REGISTER_BYTES = 32;
#else
constexpr int REGISTER_BYTES = 16;
#endif
constexpr int WIDTH = REGISTER_BYTES / 8;  // lanes of one register
constexpr int PARTS = LANES / WIDTH;       // registers of one pack

template <class T>
struct Pack {
    typedef T Register __attribute__((vector_size(REGISTER_BYTES)));
    Register part[PARTS];

    T operator[](int lane) const { return part[lane / WIDTH][lane % WIDTH]; }
    void set(int lane, T value) { part[lane / WIDTH][lane % WIDTH] = value; }
};

using Lanes = Pack<double>;
using Words = Pack<std::uint64_t>;
using Mask = Pack<std::int64_t>;  // all bits of a lane set, or none

template <class T>
inline Pack<T> fill(T value) {
    Pack<T> r;
    for (int i = 0; i < PARTS; ++i) r.part[i] = typename Pack<T>::Register{} + value;
    return r;
}
inline Lanes lanes(double value) { return fill(value); }
inline Words words(std::uint64_t value) { return fill(value); }

#define OVERPARAM_BINARY(op)                                                \
    template <class T>                                                      \
    inline Pack<T> operator op(Pack<T> a, const Pack<T>& b) {               \
        for (int i = 0; i < PARTS; ++i) a.part[i] = a.part[i] op b.part[i]; \
        return a;                                                           \
    }                                                                       \
    inline Lanes operator op(Lanes a, double b) { return a op fill(b); }    \
    inline Lanes operator op(double a, Lanes b) { return fill(a) op b; }
OVERPARAM_BINARY(+)
OVERPARAM_BINARY(-)
OVERPARAM_BINARY(*)
OVERPARAM_BINARY(/)
#undef OVERPARAM_BINARY

#define OVERPARAM_BITWISE(op)                                               \
    template <class T>                                                      \
    inline Pack<T> operator op(Pack<T> a, const Pack<T>& b) {               \
        for (int i = 0; i < PARTS; ++i) a.part[i] = a.part[i] op b.part[i]; \
        return a;                                                           \
    }                                                                       \
    inline Words operator op(Words a, std::uint64_t b) { return a op fill(b); }
OVERPARAM_BITWISE(&)
OVERPARAM_BITWISE(|)
OVERPARAM_BITWISE(^)
#undef OVERPARAM_BITWISE

inline Words operator+(Words a, std::uint64_t b) { return a + fill(b); }
inline Words operator-(Words a, std::uint64_t b) { return a - fill(b); }
inline Words operator<<(Words a, int bits) {
    for (int i = 0; i < PARTS; ++i) a.part[i] = a.part[i] << bits;
    return a;
}
inline Words operator>>(Words a, int bits) {
    for (int i = 0; i < PARTS; ++i) a.part[i] = a.part[i] >> bits;
    return a;
}
inline Mask operator~(Mask a) {
    for (int i = 0; i < PARTS; ++i) a.part[i] = ~a.part[i];
    return a;
}
inline Lanes operator-(Lanes a) {
    for (int i = 0; i < PARTS; ++i) a.part[i] = -a.part[i];
    return a;
}
inline Lanes& operator+=(Lanes& a, const Lanes& b) { return a = a + b; }
inline Lanes& operator-=(Lanes& a, const Lanes& b) { return a = a - b; }
inline Lanes& operator*=(Lanes& a, const Lanes& b) { return a = a * b; }

inline Mask operator<(const Lanes& a, const Lanes& b) {
    Mask r;
    for (int i = 0; i < PARTS; ++i) r.part[i] = a.part[i] < b.part[i];
    return r;
}
inline Mask operator>(const Lanes& a, const Lanes& b) { return b < a; }

// yes where the mask is set, no elsewhere.
inline Lanes select(const Mask& m, const Lanes& yes, const Lanes& no) {
    Lanes r;
    for (int i = 0; i < PARTS; ++i) r.part[i] = m.part[i] ? yes.part[i] : no.part[i];
    return r;
}
inline Lanes maximum(const Lanes& a, const Lanes& b) { return select(a < b, b, a); }

inline bool any(const Mask& m) {
    Mask::Register all = m.part[0];
    for (int i = 1; i < PARTS; ++i) all |= m.part[i];
#if defined(__AVX512F__)
    return _mm512_test_epi64_mask(reinterpret_cast<__m512i>(all), reinterpret_cast<__m512i>(all)) !=
           0;
#elif defined(__AVX__)
    return !_mm256_testz_si256(reinterpret_cast<__m256i>(all), reinterpret_cast<__m256i>(all));
#else
    std::int64_t r = 0;
    for (int k = 0; k < WIDTH; ++k) r |= all[k];
    return r != 0;
#endif
}

inline Lanes load(const double* p) {
    Lanes x;
    std::memcpy(&x, p, sizeof x);
    return x;
}
inline void store(double* p, const Lanes& x) { std::memcpy(p, &x, sizeof x); }
// Single precision in memory.
inline Lanes load(const float* p) {
    typedef float Floats __attribute__((vector_size(REGISTER_BYTES / 2)));
    Lanes x;
    for (int i = 0; i < PARTS; ++i) {
        Floats f;
        std::memcpy(&f, p + i * WIDTH, sizeof f);
        x.part[i] = __builtin_convertvector(f, Lanes::Register);
    }
    return x;
}

inline Words as_words(const Lanes& x) {
    Words w;
    std::memcpy(&w, &x, sizeof w);
    return w;
}
inline Lanes as_lanes(const Words& w) {
    Lanes x;
    std::memcpy(&x, &w, sizeof x);
    return x;
}

// Sum over lanes in a fixed order, the same for every register width.
inline double sum(const Lanes& x) {
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}

inline Lanes sqrt(Lanes x) {
    for (int i = 0; i < PARTS; ++i) {
#if defined(__AVX512F__)
        x.part[i] = reinterpret_cast<Lanes::Register>(
            _mm512_maskz_sqrt_pd(0xff, reinterpret_cast<__m512d>(x.part[i])));
#elif defined(__AVX2__)
        x.part[i] =
            reinterpret_cast<Lanes::Register>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(x.part[i])));
#else
        for (int k = 0; k < WIDTH; ++k) x.part[i][k] = std::sqrt(x.part[i][k]);
#endif
    }
    return x;
}

// Low 32 bits of each word times `factor`, as a full 64-bit product.
inline Words multiply_low(Words x, std::uint32_t factor) {
    for (int i = 0; i < PARTS; ++i) {
#if defined(__AVX512F__)
        x.part[i] = reinterpret_cast<Words::Register>(_mm512_maskz_mul_epu32(
            0xff, reinterpret_cast<__m512i>(x.part[i]), _mm512_set1_epi64(factor)));
#elif defined(__AVX2__)
        x.part[i] = reinterpret_cast<Words::Register>(
            _mm256_mul_epu32(reinterpret_cast<__m256i>(x.part[i]), _mm256_set1_epi64x(factor)));
#else
        x.part[i] = (x.part[i] & 0xffffffffULL) * static_cast<std::uint64_t>(factor);
#endif
    }
    return x;
}

// Natural logarithm of positive normal numbers.
inline Lanes log(const Lanes& x) {
    // x = 2^k m with m in [sqrt(1/2), sqrt 2): SPLIT moves the border between exponents to
    // sqrt(1/2).
    constexpr std::uint64_t ONE = 0x3ff0000000000000ULL, SPLIT = 0x3fe6a09e667f3bcdULL;
    constexpr std::uint64_t TWO52 = 0x4330000000000000ULL;  // bits of 2^52
    const Words shifted = as_words(x) + (ONE - SPLIT);
    const Lanes k = as_lanes((shifted >> 52) | TWO52) - (4503599627370496.0 + 1023.0);
    const Lanes m = as_lanes((shifted & 0x000fffffffffffffULL) + SPLIT);
    // log m = 2 artanh(s), s = (m - 1)/(m + 1), with a minimax polynomial in s^2.
    const Lanes f = m - 1.0;
    const Lanes s = f / (2.0 + f);
    const Lanes z = s * s;
    Lanes r = 1.479819860511658591e-01 * z + 1.531383769920937332e-01;
    r = r * z + 1.818357216161805012e-01;
    r = r * z + 2.222219843214978396e-01;
    r = r * z + 2.857142874366239149e-01;
    r = r * z + 3.999999999940941908e-01;
    r = r * z + 6.666666666666735130e-01;
    const Lanes correction = s * (r * z);
    // The last bits of ln 2 are added to the small terms.
    return k * 6.93147180369123816490e-01 +
           (2.0 * s + (correction + k * 1.90821492927058770002e-10));
}

// exp(x) for |x| <= 708.
inline Lanes exp(const Lanes& x) {
    // 2^k exp(r) with k the nearest integer, in the low bits after adding 1.5 2^52.
    const Lanes rounded = x * 1.44269504088896340736 + 6755399441055744.0;
    const Lanes k = rounded - 6755399441055744.0;
    const Lanes r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    Lanes e = 2.5110049204818659793e-08 * r + 2.763265472252779189e-07;
    e = e * r + 2.7557240887229868596e-06;
    e = e * r + 2.4801485441561312966e-05;
    e = e * r + 1.9841269890076402829e-04;
    e = e * r + 1.3888888952352862866e-03;
    e = e * r + 8.3333333333195896163e-03;
    e = e * r + 4.166666666648795252e-02;
    e = e * r + 1.666666666666668082e-01;
    e = e * r + 5.0000000000000184039e-01;
    e = e * r + 1.0;
    e = e * r + 1.0;
    return as_lanes(as_words(e) + (as_words(rounded) << 52));
}

// cos and sin of q quarter turns plus y, |y| <= pi/4; q counts modulo 4.
inline void cos_sin_quarters(const Words& q, const Lanes& y, Lanes& cosine, Lanes& sine) {
    const Lanes z = y * y;
    Lanes s = 1.58969099521155010221e-10 * z - 2.50507602534068634195e-08;
    s = s * z + 2.75573137070700676789e-06;
    s = s * z - 1.98412698298579493134e-04;
    s = s * z + 8.33333333332248946124e-03;
    s = s * z - 1.66666666666666324348e-01;
    s = y + y * (s * z);
    Lanes c = -1.13596475577881948265e-11 * z + 2.08757232129817482790e-09;
    c = c * z - 2.75573143513906633035e-07;
    c = c * z + 2.48015872894767294178e-05;
    c = c * z - 1.38888888888741095749e-03;
    c = c * z + 4.16666666666666019037e-02;
    c = 1.0 - z * (0.5 - c * z);
    // In odd quarters the two swap; cos changes sign in quarters 1 and 2, sin in quarters 2 and 3.
    const Words swap = (as_words(s) ^ as_words(c)) & (words(0) - (q & 1));
    cosine = as_lanes(as_words(c) ^ swap ^ (((q + 1) & 2) << 62));
    sine = as_lanes(as_words(s) ^ swap ^ ((q & 2) << 62));
}

// cos(2 pi v) and sin(2 pi v) for v in [0, 1].
inline void cos_sin_turns(const Lanes& v, Lanes& cosine, Lanes& sine) {
    // Quarter turns: 4 v = q + r with q the nearest integer; adding 1.5 2^52 leaves q in the low
    // bits.
    const Lanes t = 4.0 * v;
    const Lanes rounded = t + 6755399441055744.0;
    cos_sin_quarters(as_words(rounded),
                     (t - (rounded - 6755399441055744.0)) * 1.57079632679489661923, cosine, sine);
}

// cos(x) and sin(x) for |x| < 1e6.
inline void cos_sin(const Lanes& x, Lanes& cosine, Lanes& sine) {
    const Lanes rounded = x * 6.36619772367581382433e-01 + 6755399441055744.0;
    const Lanes q = rounded - 6755399441055744.0;
    // pi/2 in three parts; the first two have 33 bits, so that their products with q are exact.
    const Lanes y = ((x - q * 1.57079632673412561417e+00) - q * 6.07710050630396597660e-11) -
                    q * 2.02226624879595063154e-21;
    cos_sin_quarters(as_words(rounded), y, cosine, sine);
}

}  // namespace overparam
