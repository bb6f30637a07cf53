#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <memory>
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
using bind::InOut;
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

void bind_theory(py::module_&) {}

}  // namespace

// ---- simulation ----

namespace {

features::Experiment make_experiment(Index dim, Index width, Index replicas, Index teachers,
                                     Index block, const std::string& activation,
                                     const std::string& teacher_activation, bool sphere,
                                     const Array& v, const Array& frame, double noise_var,
                                     std::uint64_t seed) {
    features::Experiment e;
    e.dim = dim;
    e.width = width;
    e.replicas = replicas;
    e.teachers = teachers;
    e.block = block;
    e.activation = activation_named(activation);
    e.teacher_activation = activation_named(teacher_activation);
    e.sphere = sphere;
    e.v = copy(v);
    e.frame = copy(frame);
    e.noise_var = noise_var;
    e.seed = seed;
    return e;
}

void bind_simulation(py::module_& m) {
    py::class_<features::Experiment>(m, "FeaturesExperiment")
        .def(py::init(&make_experiment), py::kw_only(), py::arg("dim"), py::arg("width"),
             py::arg("replicas"), py::arg("teachers"), py::arg("block"), py::arg("activation"),
             py::arg("teacher_activation"), py::arg("sphere"), py::arg("v"), py::arg("frame"),
             py::arg("noise_var"), py::arg("seed"));

    // W (width, dim) and B (units, dim), or empty arrays: drawn.
    py::class_<features::Simulation>(m, "FeaturesSimulation")
        .def(py::init(
                 [](const features::Experiment& e, const Array& W, const Array& B, int threads) {
                     if (W.size() > 0) require_shape("W", W, {e.width, e.dim});
                     if (B.size() > 0) require_shape("B", B, {e.units(), e.dim});
                     std::vector<double> w = copy(W), b = copy(B);
                     py::gil_scoped_release release;
                     return std::make_unique<features::Simulation>(e, std::move(w), std::move(b),
                                                                   threads);
                 }),
             py::arg("experiment"), py::arg("W"), py::arg("B"), py::arg("threads"))
        .def(
            "start",
            [](const features::Simulation& self, double init_var) {
                const features::Experiment& e = self.experiment();
                Array a = allocate({e.replicas, e.width, e.teachers});
                self.start(init_var, a.mutable_data());
                return a;
            },
            py::arg("init_var"))
        .def(
            "first_layer",
            [](const features::Simulation& self, Index replica) {
                const features::Experiment& e = self.experiment();
                Array W = allocate({e.width, e.dim});
                std::copy_n(self.first_layer(replica), W.size(), W.mutable_data());
                return W;
            },
            py::arg("replica"))
        .def(
            "teachers",
            [](const features::Simulation& self, Index replica) {
                const features::Experiment& e = self.experiment();
                Array B = allocate({e.teachers, e.units(), e.dim});
                std::copy_n(self.teachers(replica), B.size(), B.mutable_data());
                return B;
            },
            py::arg("replica"))
        .def(
            "stream",
            [](const features::Simulation& self, Index replica, Index step, Index count) {
                const features::Experiment& e = self.experiment();
                Array X = allocate({count, e.dim}), noise = allocate({count, e.teachers});
                self.inputs(replica, step, count, X.mutable_data());
                self.label_noise(replica, step, count, noise.mutable_data());
                return py::typing::Tuple<Array, Array>(py::make_tuple(X, noise));
            },
            py::arg("replica"), py::arg("step"), py::arg("count"))
        .def(
            "advance",
            [](const features::Simulation& self, const Array& rates, Index step, InOut a,
               int threads) {
                const features::Experiment& e = self.experiment();
                require_shape("a", a, {e.replicas, e.width, e.teachers});
                double* state = a.mutable_data();
                py::gil_scoped_release release;
                self.advance(rates.data(), step, rates.size(), state, threads);
            },
            py::arg("rates"), py::arg("step"), py::arg("a").noconvert(), py::arg("threads"));

    m.def(
        "features_risks",
        [](const Array& gram, const Array& cross, const Array& energy, const Array& a,
           int threads) {
            const Index replicas = a.shape(0), width = a.shape(1), teachers = a.shape(2);
            const Index grams = gram.shape(0), crosses = cross.shape(0);
            require_shape("gram", gram, {grams == 1 ? 1 : replicas, width, width});
            require_shape("cross", cross, {crosses == 1 ? 1 : replicas, width, teachers});
            require_shape("energy", energy, {crosses, teachers});
            Array out = allocate({replicas});
            double* risks = out.mutable_data();
            {
                py::gil_scoped_release release;
                features::risks(gram.data(), grams, cross.data(), energy.data(), crosses, a.data(),
                                replicas, width, teachers, threads, risks);
            }
            return out;
        },
        py::arg("gram"), py::arg("cross"), py::arg("energy"), py::arg("a"), py::arg("threads"));
}

}  // namespace

void bind_random_features(py::module_& m) {
    bind_theory(m);
    bind_simulation(m);
}
