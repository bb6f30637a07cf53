#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/threads.hpp"
#include "bind/array.hpp"
#include "models/empirical_flow.hpp"

namespace py = pybind11;
using namespace overparam;
using bind::allocate;
using bind::Array;
using bind::Arrays;
using bind::copy;
using bind::require_shape;
namespace flow = overparam::empirical_flow;

// ---- long times
// ------------------------------------------------------------------------------------

namespace {

flow::TeacherLaw make_teacher(double mean, double second, double ratio, const Array& positions,
                              const Array& weights, const std::vector<double>& interval,
                              double variance) {
    bind::require_shape("weights", weights, {positions.size()});
    flow::TeacherLaw law{mean, second, ratio, copy(positions), copy(weights), {}, variance};
    if (!interval.empty())
        law.interval = {interval.at(0), interval.at(1), interval.at(2), interval.at(3),
                        interval.at(4), interval.at(5), interval.at(6)};
    return law;
}

// A (fields, solutions) array, the number of evaluations and the status.
py::typing::Tuple<Array, Index, Status> as_tuple(const flow::Found& found) {
    const Index n = static_cast<Index>(found.fixed.size());
    Array out = allocate({flow::FIXED_FIELDS, n});
    double* values = out.mutable_data();
    for (Index i = 0; i < n; ++i) {
        const double* fields = &found.fixed[i].alpha;
        for (Index j = 0; j < flow::FIXED_FIELDS; ++j) values[j * n + i] = fields[j];
    }
    return py::make_tuple(out, found.evaluations, found.status);
}

void bind_long_time(py::module_& m) {
    py::class_<flow::TeacherLaw>(m, "TeacherLaw")
        .def(py::init(&make_teacher), py::kw_only(), py::arg("mean"), py::arg("second"),
             py::arg("ratio"), py::arg("positions"), py::arg("weights"), py::arg("interval"),
             py::arg("variance"))
        .def(
            "long_time",
            [](const flow::TeacherLaw& self, double alpha, double kappa, double noise, double lam) {
                py::gil_scoped_release release;
                const flow::Found found = flow::long_time(self, {alpha, kappa, noise, lam});
                py::gil_scoped_acquire acquire;
                return as_tuple(found);
            },
            py::arg("alpha"), py::arg("kappa"), py::arg("noise"), py::arg("lam"))
        .def(
            "curve",
            [](const flow::TeacherLaw& self, double kappa, double noise, double lam,
               const Array& sigma2) {
                const std::vector<double> values = copy(sigma2);
                py::gil_scoped_release release;
                const flow::Found found = flow::curve(self, {0.0, kappa, noise, lam}, values);
                py::gil_scoped_acquire acquire;
                return as_tuple(found);
            },
            py::arg("kappa"), py::arg("noise"), py::arg("lam"), py::arg("sigma2"))
        .def(
            "optimal_ridge",
            [](const flow::TeacherLaw& self, double alpha, double kappa, double noise) {
                return flow::optimal_ridge(self, {alpha, kappa, noise, 0.0});
            },
            py::arg("alpha"), py::arg("kappa"), py::arg("noise"),
            py::call_guard<py::gil_scoped_release>());
    m.def("flow_bayes_risk", &flow::bayes_risk, py::arg("alpha"), py::arg("ratio"),
          py::arg("scale"), py::arg("noise"));
    m.def("flow_recovery_threshold", &flow::recovery_threshold, py::arg("kappa"), py::arg("ratio"));
    m.def("flow_interpolation_threshold", &flow::interpolation_threshold, py::arg("kappa"),
          py::arg("ratio"), py::arg("noise"));
    m.def("flow_saturation_width", &flow::saturation_width, py::arg("ratio"));
}

}  // namespace

// ---- the network itself ------------------------------------------------------------------------

namespace {

flow::Experiment make_experiment(Index dim, Index width, Index samples, const std::string& sensing,
                                 double noise_var, double ridge, double init_scale,
                                 const Array& teacher, Index teacher_width, double teacher_scale,
                                 std::uint64_t seed) {
    flow::Experiment e;
    e.d = dim;
    e.m = width;
    e.n = samples;
    e.design = sensing == "goe" ? flow::Design::GOE : flow::Design::NETWORK;
    e.noise_var = noise_var;
    e.ridge = ridge;
    e.init_scale = init_scale;
    e.teacher = copy(teacher);
    if (!e.teacher.empty()) require_shape("teacher", teacher, {dim});
    e.teacher_width = teacher_width;
    e.teacher_scale = teacher_scale;
    e.seed = seed;
    return e;
}

Array square(const std::vector<double>& values, Index d) {
    Array out = allocate({d, d});
    std::copy(values.begin(), values.end(), out.mutable_data());
    return out;
}

void bind_network(py::module_& m) {
    py::class_<flow::Experiment>(m, "Experiment")
        .def(py::init(&make_experiment), py::kw_only(), py::arg("dim"), py::arg("width"),
             py::arg("samples"), py::arg("sensing"), py::arg("noise_var"), py::arg("ridge"),
             py::arg("init_scale"), py::arg("teacher"), py::arg("teacher_width"),
             py::arg("teacher_scale"), py::arg("seed"));

    py::class_<flow::Network, std::shared_ptr<flow::Network>>(m, "Network")
        .def(py::init<const flow::Experiment&, std::uint64_t, int>(), py::arg("experiment"),
             py::arg("replica"), py::arg("threads"), py::call_guard<py::gil_scoped_release>())
        .def_property_readonly(
            "teacher", [](const flow::Network& self) { return square(self.teacher(), self.d()); })
        .def(
            "start",
            [](const flow::Network& self, std::uint64_t attempt) {
                const std::vector<double> W = self.start(attempt);
                Array out = allocate({self.d(), self.m()});
                std::copy(W.begin(), W.end(), out.mutable_data());
                return out;
            },
            py::arg("attempt"))
        .def(
            "loss_gradient",
            [](const flow::Network& self, const Array& W) {
                require_shape("W", W, {self.d(), self.m()});
                Array out = allocate({self.d(), self.m()});
                double* gradient = out.mutable_data();
                const double* w = W.data();
                double train_risk;
                {
                    py::gil_scoped_release release;
                    train_risk = self.loss_gradient(w, gradient);
                }
                return py::typing::Tuple<double, Array>(py::make_tuple(train_risk, out));
            },
            py::arg("W"))
        .def(
            "measure",
            [](const flow::Network& self, const Array& W, double train_risk) {
                require_shape("W", W, {self.d(), self.m()});
                Array out = allocate({flow::FIELDS + self.d()});
                self.measure(W.data(), train_risk, true, out.mutable_data());
                return out;
            },
            py::arg("W"), py::arg("train_risk"))
        .def("samples",
             [](const flow::Network& self) {
                 const Index n = static_cast<Index>(self.noise().size());
                 Array X = allocate({n, self.d(), self.d()}), y = allocate({n});
                 self.samples(X.mutable_data(), y.mutable_data());
                 return py::typing::Tuple<Array, Array>(py::make_tuple(X, y));
             })
        .def(
            "descent",
            [](const std::shared_ptr<flow::Network>& self, const Array& W, const Array& lr,
               std::vector<Index> steps, bool eigenvalues) {
                require_shape("W", W, {self->d(), self->m()});
                return flow::descent(self, copy(W), copy(lr), std::move(steps), eigenvalues);
            },
            py::arg("W"), py::arg("lr"), py::arg("steps"), py::arg("eigenvalues"))
        .def(
            "flow",
            [](const std::shared_ptr<flow::Network>& self, const Array& W, const Array& t,
               double rtol, double atol, Index max_steps, bool eigenvalues) {
                require_shape("W", W, {self->d(), self->m()});
                return flow::gradient_flow(self, copy(W), copy(t), rtol, atol, max_steps,
                                           eigenvalues);
            },
            py::arg("W"), py::arg("t"), py::arg("rtol"), py::arg("atol"), py::arg("max_steps"),
            py::arg("eigenvalues"));

    // Advances each of the runs by about `evaluations`; says which have no more to do.
    m.def(
        "advance_runs",
        [](const std::vector<Run*>& runs, Index evaluations, int threads) {
            std::vector<char> done(runs.size());
            {
                py::gil_scoped_release release;
                parallel_for(static_cast<Index>(runs.size()), threads,
                             [&](Index i) { done[i] = runs[i]->advance(evaluations); });
            }
            return std::vector<bool>(done.begin(), done.end());
        },
        py::arg("runs"), py::arg("evaluations"), py::arg("threads"));
}

}  // namespace

// ---- dynamical mean-field theory ---------------------------------------------------------------

namespace {

flow::EffectiveModel make_effective(Index dim, Index width, Index steps, Index replicas,
                                    Index groups, Index probes, double alpha, double noise_var,
                                    double init_scale, double momentum, const Array& lr,
                                    const Array& ridge, const Array& teacher, Index teacher_width,
                                    double teacher_scale, std::uint64_t seed) {
    flow::EffectiveModel e;
    e.d = dim;
    e.m = width;
    e.steps = steps;
    e.replicas = replicas;
    e.groups = groups;
    e.probes = probes;
    e.alpha = alpha;
    e.noise_var = noise_var;
    e.init_scale = init_scale;
    e.momentum = momentum;
    e.lr = copy(lr);
    e.ridge = copy(ridge);
    e.teacher = copy(teacher);
    if (!e.teacher.empty()) require_shape("teacher", teacher, {dim});
    e.teacher_width = teacher_width;
    e.teacher_scale = teacher_scale;
    e.seed = seed;
    return e;
}

// The arrays of a run by name: type and shape.
std::map<std::string, std::pair<std::string, std::vector<Index>>> effective_layout(
    const flow::EffectiveModel& e, const std::string& storage) {
    const Index rows = e.steps + 1, R = e.replicas, G = e.groups, K = e.probes;
    const std::vector<Index> square = {G, rows, rows}, line = {G, rows};
    return {{"W", {"float64", {2, R, 1 + K, e.d * e.columns()}}},
            {"subdiagonal", {"float64", {R}}},
            {"error", {storage, {R, e.blocks(), e.rows(), e.block()}}},
            {"noise", {storage, {R, e.blocks(), e.rows(), e.block()}}},
            {"tangent", {storage, {R * K, e.blocks(), e.rows(), e.block()}}},
            {"signs", {"uint64", {R * K, e.steps, e.words()}}},
            {"teacher", {"float64", {R, e.blocks() * e.block()}}},
            {"correlation", {"float64", square}},
            {"response", {"float64", square}},
            {"memory", {"float64", square}},
            {"residual", {"float64", square}},
            {"factor", {"float64", square}},
            {"trace", {"float64", line}},
            {"overlap", {"float64", line}},
            {"stein", {"float64", line}}};
}

// Calls f with the state that `arrays` hold, in the precision of its history.
template <class F>
auto with_state(const flow::EffectiveModel& e, const Arrays& arrays, F f) {
    const bool single = bind::holds<float>(arrays, "error");
    const auto layout = effective_layout(e, single ? "float32" : "float64");
    const auto view = [&](const char* name, auto type) {
        return bind::entries<decltype(type)>(arrays, name, layout.at(name).second);
    };
    const auto state = [&](auto type) {
        flow::EffectiveState<decltype(type)> s;
        s.W = view("W", 0.0);
        s.subdiagonal = view("subdiagonal", 0.0);
        s.error = view("error", type);
        s.noise = view("noise", type);
        s.tangent = view("tangent", type);
        s.signs = view("signs", std::uint64_t{});
        s.teacher = view("teacher", 0.0);
        s.correlation = view("correlation", 0.0);
        s.response = view("response", 0.0);
        s.memory = view("memory", 0.0);
        s.residual = view("residual", 0.0);
        s.factor = view("factor", 0.0);
        s.trace = view("trace", 0.0);
        s.overlap = view("overlap", 0.0);
        s.stein = view("stein", 0.0);
        return s;
    };
    if (single) {
        const auto s = state(0.0f);
        py::gil_scoped_release release;
        return f(s);
    }
    const auto s = state(0.0);
    py::gil_scoped_release release;
    return f(s);
}

void bind_effective(py::module_& m) {
    py::class_<flow::EffectiveModel>(m, "EffectiveModel")
        .def(py::init(&make_effective), py::kw_only(), py::arg("dim"), py::arg("width"),
             py::arg("steps"), py::arg("replicas"), py::arg("groups"), py::arg("probes"),
             py::arg("alpha"), py::arg("noise_var"), py::arg("init_scale"), py::arg("momentum"),
             py::arg("lr"), py::arg("ridge"), py::arg("teacher"), py::arg("teacher_width"),
             py::arg("teacher_scale"), py::arg("seed"))
        .def("layout", &effective_layout, py::arg("storage"))
        .def(
            "start",
            [](const flow::EffectiveModel& self, const Arrays& arrays, int threads) {
                with_state(self, arrays,
                           [&](const auto& state) { flow::effective_start(self, state, threads); });
            },
            py::arg("arrays"), py::arg("threads"))
        .def(
            "advance",
            [](const flow::EffectiveModel& self, const Arrays& arrays, Index first, Index count,
               int threads) {
                if (first < 0 || count < 0 || first + count > self.steps + 1) {
                    throw ArgumentError("count", "within the steps of the run",
                                        std::to_string(count));
                }
                return with_state(self, arrays, [&](const auto& state) {
                    return flow::effective_advance(self, state, first, count, threads);
                });
            },
            py::arg("arrays"), py::arg("first"), py::arg("count"), py::arg("threads"));
}

}  // namespace

void bind_empirical_flow(py::module_& m) {
    bind_long_time(m);
    bind_network(m);
    bind_effective(m);
}
