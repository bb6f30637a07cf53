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
