// Roots and minima of functions of one variable.
#pragma once

#include <algorithm>
#include <cmath>
#include <utility>

namespace overparam {

// A root of f between a and b, where f has values fa and fb of opposite sign (either may be 0), by
// Brent's method; the bracket around it is at most 2 (tolerance + eps |root|) wide.
template <class F>
double root(F&& f, double a, double fa, double b, double fb, double tolerance) {
    if (fa == 0.0) return a;
    if (fb == 0.0) return b;
    double c = a, fc = fa, step = b - a, previous = step;
    for (int iteration = 0; iteration < 200; ++iteration) {
        if (std::abs(fc) < std::abs(fb)) {
            a = b, b = c, c = a;
            fa = fb, fb = fc, fc = fa;
        }
        const double tol = 4.4e-16 * std::abs(b) + tolerance, half = 0.5 * (c - b);
        if (std::abs(half) <= tol || fb == 0.0) break;
        if (std::abs(previous) < tol || std::abs(fa) <= std::abs(fb)) {
            step = previous = half;
        } else {
            const double s = fb / fa;
            double p, q;
            if (a == c) {
                p = 2.0 * half * s;
                q = 1.0 - s;
            } else {
                const double u = fa / fc, r = fb / fc;
                p = s * (2.0 * half * u * (u - r) - (b - a) * (r - 1.0));
                q = (u - 1.0) * (r - 1.0) * (s - 1.0);
            }
            if (p > 0.0)
                q = -q;
            else
                p = -p;
            if (2.0 * p < std::min(3.0 * half * q - std::abs(tol * q), std::abs(previous * q))) {
                previous = step;
                step = p / q;
            } else {
                step = previous = half;
            }
        }
        a = b, fa = fb;
        b += std::abs(step) > tol ? step : std::copysign(tol, half);
        fb = f(b);
        if ((fb > 0.0) == (fc > 0.0)) {
            c = a, fc = fa;
            step = previous = b - a;
        }
    }
    return b;
}

// Newton's method between a and b, at which an increasing function is negative and positive; f
// returns value and slope. Steps that leave the bracket or do not shrink are replaced by bisection,
// by the geometric mean where a > 0. Stops after a step below tolerance(x).
template <class F, class Tolerance>
double newton_within(F&& f, double a, double b, double x, Tolerance&& tolerance) {
    const auto middle = [&] { return a > 0.0 && b > 4.0 * a ? std::sqrt(a * b) : 0.5 * (a + b); };
    if (!(x > a && x < b)) x = middle();
    double last = b - a;
    for (int iteration = 0; iteration < 200; ++iteration) {
        const auto [value, slope] = f(x);
        if (value == 0.0) break;
        (value < 0.0 ? a : b) = x;
        double next = x - value / slope;
        if (std::abs(next - x) <= tolerance(x)) return std::clamp(next, a, b);
        if (next > a && next < b && std::abs(next - x) < 0.7 * last) {
            last = std::abs(next - x);
        } else {
            next = middle();
            last = b - a;
        }
        x = next;
        if (!(b - a > 2.3e-16 * std::max(std::abs(a), std::abs(b)))) break;
    }
    return x;
}

// The same with a tolerance relative to x.
template <class F>
double newton(F&& f, double a, double b, double x, double relative) {
    return newton_within(f, a, b, x, [relative](double x) { return relative * std::abs(x); });
}

// A local minimum of f between a and c with its value, by golden sections; f(b) is below both ends.
template <class F>
std::pair<double, double> minimum(F&& f, double a, double b, double c, double fb,
                                  double tolerance) {
    constexpr double golden = 0.3819660112501051;
    while (c - a > tolerance) {
        const bool right = c - b > b - a;
        const double x = right ? b + golden * (c - b) : b - golden * (b - a);
        const double fx = f(x);
        if (fx < fb) {
            (right ? a : c) = b;
            b = x, fb = fx;
        } else {
            (right ? c : a) = x;
        }
    }
    return {b, fb};
}

}  // namespace overparam
