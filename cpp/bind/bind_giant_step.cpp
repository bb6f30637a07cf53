#include <pybind11/complex.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "bind/array.hpp"
#include "models/giant_step.hpp"

namespace py = pybind11;
using namespace overparam;
using bind::allocate;
using bind::Array;
using bind::copy;
using bind::require_shape;
namespace giant = overparam::giant_step;

namespace {

Array array(const std::vector<double>& values, const std::vector<Index>& shape) {
    Array out = allocate(shape);
    std::copy(values.begin(), values.end(), out.mutable_data());
    return out;
}

}  // namespace

// ---- tables and modes ----

namespace {

giant::Tables make_tables(const Array& kappa, const Array& weight, const Array& mean,
                          const Array& linear, const Array& residual, const Array& curvature,
                          const Array& target, const Array& target_linear,
                          const Array& target_second) {
    const Index nodes = kappa.size(), groups = mean.shape(0);
    require_shape("weight", weight, {nodes});
    require_shape("mean", mean, {groups, nodes});
    require_shape("linear", linear, {groups, nodes});
    require_shape("residual", residual, {groups, nodes});
    require_shape("curvature", curvature, {groups, nodes});
    require_shape("target", target, {nodes});
    require_shape("target_linear", target_linear, {nodes});
    require_shape("target_second", target_second, {nodes});
    return {copy(kappa),     copy(weight), copy(mean),          copy(linear),       copy(residual),
            copy(curvature), copy(target), copy(target_linear), copy(target_second)};
}

giant::Modes make_modes(const std::vector<giant::Complex>& weight,
                        const std::vector<std::vector<giant::Complex>>& covariance,
                        const std::vector<giant::Complex>& along,
                        const std::vector<giant::Complex>& across,
                        const std::vector<giant::Complex>& orthogonal) {
    giant::Modes modes{weight, {}, along, across, orthogonal};
    for (const auto& row : covariance) {
        modes.covariance.insert(modes.covariance.end(), row.begin(), row.end());
    }
    return modes;
}

void bind_tables(py::module_& m) {
    py::class_<giant::Tables>(m, "GiantTables")
        .def(py::init(&make_tables), py::kw_only(), py::arg("kappa"), py::arg("weight"),
             py::arg("mean"), py::arg("linear"), py::arg("residual"), py::arg("curvature"),
             py::arg("target"), py::arg("target_linear"), py::arg("target_second"))
        .def_property_readonly("groups", &giant::Tables::groups)
        .def_property_readonly("nodes", &giant::Tables::nodes);
    py::class_<giant::Modes>(m, "GiantModes")
        .def(py::init(&make_modes), py::kw_only(), py::arg("weight"), py::arg("covariance"),
             py::arg("along"), py::arg("across"), py::arg("orthogonal"))
        .def_readonly("weight", &giant::Modes::weight)
        .def_property_readonly("groups", &giant::Modes::groups)
        .def_property_readonly("count", &giant::Modes::count)
        .def_readonly("covariance", &giant::Modes::covariance)
        .def_readonly("along", &giant::Modes::along)
        .def_readonly("across", &giant::Modes::across)
        .def_readonly("orthogonal", &giant::Modes::orthogonal)
        .def("variance_along", [](const giant::Modes& self) {
            return array(self.variance_along(), {self.groups()});
        });
}

}  // namespace

// ---- features and the square loss ----

namespace {

using Four = py::typing::Tuple<Array, Array, Array, Array>;

Four four(const giant::Features& f) {
    const std::vector<Index> shape{static_cast<Index>(f.mean.size())};
    return Four(py::make_tuple(array(f.mean, shape), array(f.linear, shape),
                               array(f.residual, shape), array(f.curvature, shape)));
}

giant::ClosedForm closed_form(const std::string& name) {
    using Kind = giant::ClosedForm::Kind;
    const double he3 = 1.0 / std::sqrt(6.0);
    if (name == "relu") return {Kind::RELU};
    if (name == "erf") return {Kind::ERF};
    if (name == "sin") return {Kind::SINE, 0.0, 1.0};
    if (name == "sin2") return {Kind::SINE, 0.0, 2.0};
    if (name == "sinlin") return {Kind::SINE, 1.0, 2.0};
    if (name == "linear") return {Kind::POLYNOMIAL, 0.0, 0.0, {0.0, 1.0}};
    if (name == "he3") return {Kind::POLYNOMIAL, 0.0, 0.0, {0.0, 1.0 - 3.0 * he3, 0.0, he3}};
    if (name == "quad1") return {Kind::POLYNOMIAL, 0.0, 0.0, {-0.5, 1.0, 0.5}};
    throw ArgumentError("activation", "one with closed forms", name);
}

// An array of the solution's fields: of shape (K,), or (K, K).
template <std::vector<double> giant::Readout::* Field, bool SQUARE = false>
Array field(const giant::Readout& r) {
    const Index groups = static_cast<Index>(r.V2.size());
    return array(r.*Field,
                 SQUARE ? std::vector<Index>{groups, groups} : std::vector<Index>{groups});
}

void bind_readout(py::module_& m) {
    m.def(
        "giant_closed_features",
        [](const std::string& activation, const Array& k, const Array& variance) {
            require_shape("variance", variance, {k.size()});
            const giant::ClosedForm s = closed_form(activation);
            return four(giant::closed_features(s, copy(k), copy(variance)));
        },
        py::arg("activation"), py::arg("k"), py::arg("variance"));
    m.def(
        "giant_lattice_features",
        [](const Array& values, double start, double step, const Array& k, double deviation) {
            return four(giant::lattice_features(copy(values), start, step, copy(k), deviation));
        },
        py::arg("values"), py::arg("start"), py::arg("step"), py::arg("k"), py::arg("deviation"));

    py::class_<giant::Setting>(m, "GiantSetting")
        .def(py::init([](double alpha, double beta, double ridge, double noise_var,
                         const Array& fraction, const Array& norm_slope, double slope_variance,
                         double inverse_width) {
                 require_shape("norm_slope", norm_slope, {fraction.size()});
                 return giant::Setting{alpha,          beta,           ridge,
                                       noise_var,      copy(fraction), copy(norm_slope),
                                       slope_variance, inverse_width};
             }),
             py::kw_only(), py::arg("alpha"), py::arg("beta"), py::arg("ridge"),
             py::arg("noise_var"), py::arg("fraction"), py::arg("norm_slope"),
             py::arg("slope_variance") = 1.0, py::arg("inverse_width") = 0.0);
    py::class_<giant::Readout>(m, "GiantReadout")
        .def_readonly("risk", &giant::Readout::risk)
        .def_readonly("train_risk", &giant::Readout::train_risk)
        .def_property_readonly("m", &field<&giant::Readout::m>)
        .def_property_readonly("theta", &field<&giant::Readout::theta>)
        .def_property_readonly("psi", &field<&giant::Readout::psi>)
        .def_property_readonly("Q1", &field<&giant::Readout::Q1, true>)
        .def_property_readonly("q2", &field<&giant::Readout::q2>)
        .def_property_readonly("V1", &field<&giant::Readout::V1, true>)
        .def_property_readonly("V2", &field<&giant::Readout::V2>)
        .def_readonly("status", &giant::Readout::status)
        .def_readonly("iterations", &giant::Readout::iterations)
        .def_readonly("residual", &giant::Readout::residual)
        .def_readonly("identity", &giant::Readout::identity);
    m.def(
        "giant_resolvent",
        [](const giant::Modes& modes, const Array& fraction, double beta, const Array& V1h,
           const Array& Lambda) {
            const Index groups = fraction.size();
            require_shape("V1h", V1h, {groups, groups});
            require_shape("Lambda", Lambda, {groups});
            const giant::Resolvent r =
                giant::resolvent(modes, copy(fraction), beta, copy(V1h), copy(Lambda));
            return py::typing::Tuple<Array, Array, Array>(py::make_tuple(
                array(r.v, {groups}), array(r.V1, {groups, groups}), array(r.V2, {groups})));
        },
        py::arg("modes"), py::arg("fraction"), py::arg("beta"), py::arg("V1h"), py::arg("Lambda"));
    m.def("giant_square", &giant::solve_square, py::arg("tables"), py::arg("modes"),
          py::arg("setting"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace

// ---- spectral measure of the bulk ----

namespace {

giant::Modes step_modes(const Array& omega, const Array& weight, const Array& label,
                        double noise_var, double samples, const Array& spread) {
    require_shape("weight", weight, {omega.size()});
    require_shape("label", label, {omega.size()});
    const giant::Labels labels{copy(omega), copy(weight), copy(label)};
    return giant::step_modes(labels, noise_var, samples, copy(spread));
}

void bind_modes(py::module_& m) {
    m.def("giant_step_modes", &step_modes, py::kw_only(), py::arg("omega"), py::arg("weight"),
          py::arg("label"), py::arg("noise_var"), py::arg("samples"), py::arg("spread"));
}

}  // namespace

// ---- logistic loss ----

namespace {

void bind_signs(py::module_& m) {
    py::class_<giant::SignLaw>(m, "GiantSignLaw")
        .def(py::init([](double first, const Array& changes, const Array& node, const Array& rest,
                         const Array& certain) {
                 require_shape("rest", rest, {node.size()});
                 return giant::SignLaw{first, copy(changes), copy(node), copy(rest), copy(certain)};
             }),
             py::kw_only(), py::arg("first"), py::arg("changes"), py::arg("node"), py::arg("rest"),
             py::arg("certain"));
    m.def(
        "giant_logistic",
        [](const giant::Tables& tables, double variance, double alignment,
           const giant::SignLaw& law, const giant::Setting& setting) {
            return giant::solve_signs(tables, variance, alignment, law, setting,
                                      giant::SignLoss::LOGISTIC);
        },
        py::arg("tables"), py::arg("variance"), py::arg("alignment"), py::arg("law"),
        py::arg("setting"), py::call_guard<py::gil_scoped_release>());
    m.def("giant_sign_error", &giant::sign_error, py::arg("tables"), py::arg("alignment"),
          py::arg("law"), py::arg("readout"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace

void bind_giant_step(py::module_& m) {
    bind_tables(m);
    bind_readout(m);
    bind_modes(m);
    bind_signs(m);
}
