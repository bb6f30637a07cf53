#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "bind/array.hpp"
#include "models/random_features.hpp"

namespace py = pybind11;
using namespace overparam;
using bind::allocate;
using bind::Array;
using bind::copy;
using bind::require_shape;
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

Array vector(const std::vector<double>& values) {
    Array out = allocate({static_cast<Index>(values.size())});
    std::copy(values.begin(), values.end(), out.mutable_data());
    return out;
}

features::Modes make_sphere(const std::string& activation, Index dim, const std::string& teacher,
                            const Array& v, const Array& overlap, double energy) {
    require_shape("overlap", overlap, {v.size(), v.size()});
    return features::sphere_modes(activation_named(activation), dim,
                                  {activation_named(teacher), copy(v), copy(overlap), energy});
}

features::Modes make_modes(const std::vector<double>& eigenvalue,
                           const std::vector<double>& multiplicity,
                           const std::vector<double>& teacher, double tail, double rest,
                           double mean) {
    features::Modes modes{eigenvalue, multiplicity, eigenvalue, teacher, tail, rest, mean};
    for (std::size_t i = 0; i < eigenvalue.size(); ++i) modes.energy[i] *= multiplicity[i];
    return modes;
}

void bind_theory(py::module_& m) {
    py::class_<features::Modes>(m, "FeatureModes")
        .def(py::init(&make_modes), py::kw_only(), py::arg("eigenvalue"), py::arg("multiplicity"),
             py::arg("teacher"), py::arg("tail"), py::arg("rest"), py::arg("mean"))
        .def_property_readonly("eigenvalue",
                               [](const features::Modes& self) { return vector(self.eigenvalue); })
        .def_property_readonly("energy",
                               [](const features::Modes& self) { return vector(self.energy); })
        .def_property_readonly("teacher",
                               [](const features::Modes& self) { return vector(self.teacher); })
        .def_readonly("tail", &features::Modes::tail)
        .def_readonly("rest", &features::Modes::rest)
        .def("minimal", &features::minimal, py::arg("width"),
             py::call_guard<py::gil_scoped_release>())
        .def("width_for", &features::width_for, py::arg("tol"),
             py::call_guard<py::gil_scoped_release>())
        .def(
            "learning_curve",
            [](const features::Modes& self, const Array& t, double width, double lr,
               double noise_var, double init_var, bool flow) {
                const std::vector<double> times = copy(t);
                std::vector<double> risk;
                {
                    py::gil_scoped_release release;
                    risk = features::learning_curve(self, {width, lr, noise_var, init_var, flow},
                                                    times);
                }
                return vector(risk);
            },
            py::arg("t"), py::kw_only(), py::arg("width"), py::arg("lr"), py::arg("noise_var"),
            py::arg("init_var"), py::arg("flow"));
    m.def("feature_sphere_modes", &make_sphere, py::arg("activation"), py::arg("dim"),
          py::arg("teacher"), py::arg("v"), py::arg("overlap"), py::arg("energy"));
    m.def(
        "feature_sphere_kernel",
        [](const std::string& activation, Index dim, Index lmax) {
            const features::SphereKernel kernel =
                features::sphere_kernel(activation_named(activation), dim, lmax);
            return py::typing::Tuple<Array, Array, double>(py::make_tuple(
                vector(kernel.eigenvalue), vector(kernel.multiplicity), kernel.tail));
        },
        py::arg("activation"), py::arg("dim"), py::arg("lmax"));
    m.def(
        "feature_hermite",
        [](const std::string& activation, Index order) {
            const HermiteSeries& g = features::hermite_series(activation_named(activation));
            return py::typing::Tuple<Array, Array>(py::make_tuple(
                vector(hermite_coefficients(g, order)), vector(hermite_products(g, g, order))));
        },
        py::arg("activation"), py::arg("order"));
    m.def(
        "rank_one_response",
        [](const Array& poles, const Array& weights, const Array& load, double source,
           const Array& t, bool steps) {
            require_shape("weights", weights, {poles.size()});
            require_shape("load", load, {poles.size()});
            const std::vector<double> d = copy(poles), w = copy(weights), x = copy(load),
                                      times = copy(t);
            std::vector<double> S;
            {
                py::gil_scoped_release release;
                S = features::rank_one_response(d, w, x, source, times, steps);
            }
            return vector(S);
        },
        py::arg("poles"), py::arg("weights"), py::arg("load"), py::arg("source"), py::arg("t"),
        py::arg("steps"));
    m.def(
        "rank_one_steps",
        [](const Array& lambda, const Array& load, double source, const Array& rates,
           const std::vector<Index>& steps, bool gaussian, bool noise) {
            require_shape("load", load, {lambda.size()});
            require_shape("rates", rates, {steps.empty() ? 0 : steps.back()});
            const std::vector<double> l = copy(lambda), eta = copy(rates);
            std::vector<double> x = copy(load), S;
            {
                py::gil_scoped_release release;
                S = features::rank_one_steps(l, std::move(x), source, eta, steps, gaussian, noise);
            }
            return vector(S);
        },
        py::arg("lam"), py::arg("load"), py::arg("source"), py::arg("rates"), py::arg("steps"),
        py::arg("gaussian"), py::arg("noise"));
}

}  // namespace

void bind_random_features(py::module_& m) { bind_theory(m); }
