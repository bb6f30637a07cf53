#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <string>

#include "bind/array.hpp"
#include "models/random_features.hpp"

namespace py = pybind11;
using namespace overparam;
namespace features = overparam::random_features;

namespace {

features::Activation activation_named(const std::string& name) {
    if (name == "erf") return features::Activation::ERF;
    if (name == "relu") return features::Activation::RELU;
    if (name == "quad") return features::Activation::QUAD;
    if (name == "square") return features::Activation::SQUARE;
    if (name == "linear") return features::Activation::LINEAR;
    if (name == "sign") return features::Activation::SIGN;
    throw ArgumentError("activation", "one of erf, relu, quad, square, linear, sign", name);
}

}  // namespace

// ---- theory
// ----------------------------------------------------------------------------------------

namespace {

void bind_theory(py::module_&) {}

}  // namespace

void bind_random_features(py::module_& m) { bind_theory(m); }
