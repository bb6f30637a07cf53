#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bind/array.hpp"
#include "models/giant_step_simulate.hpp"

namespace py = pybind11;
using namespace overparam;
using bind::allocate;
using bind::Array;
using bind::copy;
using bind::InOut;
using bind::require_shape;

namespace {

giant_step::Nonlinearity nonlinearity_named(const std::string& name) {
    using giant_step::Nonlinearity;
    if (name == "tanh") return Nonlinearity::TANH;
    if (name == "relu") return Nonlinearity::RELU;
    if (name == "erf") return Nonlinearity::ERF;
    if (name == "sin") return Nonlinearity::SIN;
    if (name == "softplus") return Nonlinearity::SOFTPLUS;
    if (name == "linear") return Nonlinearity::LINEAR;
    if (name == "sinlin") return Nonlinearity::SINLIN;
    if (name == "sin2") return Nonlinearity::SIN2;
    if (name == "he3") return Nonlinearity::HE3;
    if (name == "quad1") return Nonlinearity::QUAD1;
    throw ArgumentError(
        "name", "one of tanh, relu, erf, sin, softplus, linear, sinlin, sin2, he3, quad1", name);
}

giant_step::Scalar make_table(const Array& value, const Array& slope, double step) {
    require_shape("slope", slope, {value.size()});
    if (value.size() % 2 == 0) throw ArgumentError("value", "odd in length", "even");
    return {giant_step::Nonlinearity::TABLE, copy(value), copy(slope), step};
}

giant_step::Experiment make_experiment(Index dim, Index width, Index samples, Index first_samples,
                                       Index test_samples, const std::vector<Index>& group,
                                       const Array& readout, double lr, double ridge,
                                       double noise_var, bool spiked, const Array& strength,
                                       const Array& variance, double alignment,
                                       const giant_step::Scalar& activation,
                                       const giant_step::Scalar& target, std::uint64_t seed) {
    const Index groups = static_cast<Index>(group.size());
    require_shape("readout", readout, {groups});
    require_shape("strength", strength, {groups});
    require_shape("variance", variance, {groups});
    giant_step::Experiment e;
    e.dim = dim;
    e.width = width;
    e.samples = samples;
    e.first_samples = first_samples;
    e.test_samples = test_samples;
    e.group = group;
    e.readout = copy(readout);
    e.lr = lr;
    e.ridge = ridge;
    e.noise_var = noise_var;
    e.spiked = spiked;
    e.strength = copy(strength);
    e.variance = copy(variance);
    e.alignment = alignment;
    e.activation = activation;
    e.target = target;
    e.seed = seed;
    return e;
}

}  // namespace

void bind_giant_step_simulate(py::module_& m) {
    py::class_<giant_step::Scalar>(m, "GiantFunction")
        .def(py::init([](const std::string& name) {
                 giant_step::Scalar f;
                 f.kind = nonlinearity_named(name);
                 return f;
             }),
             py::arg("name"))
        .def(py::init(&make_table), py::arg("value"), py::arg("slope"), py::arg("step"))
        .def(
            "__call__",
            [](const giant_step::Scalar& self, const Array& x) {
                require_shape("x", x, {x.size()});
                Array value = allocate({x.size()}), slope = allocate({x.size()});
                std::copy_n(x.data(), x.size(), value.mutable_data());
                std::copy_n(x.data(), x.size(), slope.mutable_data());
                giant_step::evaluate(self, value.mutable_data(), x.size());
                giant_step::evaluate_slope(self, slope.mutable_data(), x.size());
                return py::typing::Tuple<Array, Array>(py::make_tuple(value, slope));
            },
            py::arg("x"));

    py::class_<giant_step::Experiment>(m, "GiantExperiment")
        .def(py::init(&make_experiment), py::kw_only(), py::arg("dim"), py::arg("width"),
             py::arg("samples"), py::arg("first_samples"), py::arg("test_samples"),
             py::arg("group"), py::arg("readout"), py::arg("lr"), py::arg("ridge"),
             py::arg("noise_var"), py::arg("spiked"), py::arg("strength"), py::arg("variance"),
             py::arg("alignment"), py::arg("activation"), py::arg("target"), py::arg("seed"));

    py::class_<giant_step::Simulation>(m, "GiantSimulation")
        .def(py::init<giant_step::Experiment>(), py::arg("experiment"))
        .def_property_readonly("units", &giant_step::Simulation::units)
        .def_property_readonly("memory", &giant_step::Simulation::memory)
        .def("together", &giant_step::Simulation::together, py::arg("threads"))
        .def_property_readonly("largest", &giant_step::Simulation::largest)
        .def(
            "advance",
            [](giant_step::Simulation& self, Index first, Index count, InOut measures,
               int threads) {
                const Index last = (first + count - 1) / self.units();
                if (measures.ndim() != 2 || measures.shape(0) <= last ||
                    measures.shape(1) != giant_step::Simulation::MEASURES) {
                    throw ArgumentError("measures", "an array with a row for every replica", "not");
                }
                double* out = measures.mutable_data();
                py::gil_scoped_release release;
                self.advance(first, count, out, threads);
            },
            py::arg("first"), py::arg("count"), py::arg("measures").noconvert(), py::arg("threads"))
        .def(
            "sample",
            [](const giant_step::Simulation& self, Index replica) {
                const giant_step::Experiment& e = self.experiment();
                const Index samples[3] = {e.first_samples, e.samples, e.test_samples};
                Array W = allocate({e.width, e.dim}), X[3], noise[3];
                self.first_layer(replica, W.mutable_data());
                for (int stage = 0; stage < 3; ++stage) {
                    X[stage] = allocate({samples[stage], e.dim});
                    noise[stage] = allocate({samples[stage]});
                    self.data(replica, stage, X[stage].mutable_data(), noise[stage].mutable_data());
                }
                return py::typing::Tuple<Array, Array, Array, Array, Array, Array, Array>(
                    py::make_tuple(W, X[0], noise[0], X[1], noise[1], X[2], noise[2]));
            },
            py::arg("replica"));
}
