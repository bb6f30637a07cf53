#include <pybind11/complex.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <algorithm>
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
        .def_readonly("orthogonal", &giant::Modes::orthogonal);
}

}  // namespace

// ---- spectral measure of the bulk ----

namespace {

py::typing::Tuple<giant::Modes, Array> step_bulk(const Array& omega, const Array& weight,
                                                 const Array& label, double noise_var,
                                                 double samples, const Array& spread) {
    require_shape("weight", weight, {omega.size()});
    require_shape("label", label, {omega.size()});
    const giant::Labels labels{copy(omega), copy(weight), copy(label)};
    giant::Bulk bulk = giant::step_bulk(labels, noise_var, samples, copy(spread));
    const Array variance = array(bulk.along_variance, {spread.size()});
    return py::make_tuple(std::move(bulk.modes), variance);
}

void bind_modes(py::module_& m) {
    m.def("giant_step_bulk", &step_bulk, py::kw_only(), py::arg("omega"), py::arg("weight"),
          py::arg("label"), py::arg("noise_var"), py::arg("samples"), py::arg("spread"));
}

}  // namespace

// ---- logistic loss ----

// ---- simulation ----

void bind_giant_step(py::module_& m) {
    bind_tables(m);
    bind_modes(m);
}
