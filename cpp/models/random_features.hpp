// Random features learned online: the laws of the whole learning curve at any size. Equations and
// normalisations: docs/papers/random_features.md.
#pragma once

#include "base/types.hpp"

namespace overparam::random_features {

// erf(x/sqrt 2), max(x, 0), (x^2 - 1)/sqrt 2, x^2, x, sign(x).
enum class Activation { ERF, RELU, QUAD, SQUARE, LINEAR, SIGN };

}  // namespace overparam::random_features
