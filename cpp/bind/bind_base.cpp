#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <map>
#include <string>

#include "base/blas.hpp"
#include "base/rng.hpp"
#include "base/status.hpp"
#include "base/threads.hpp"
#include "bind/array.hpp"
#include "math/ode.hpp"

namespace py = pybind11;
using namespace overparam;

void bind_base(py::module_& m) {
    py::native_enum<Status>(m, "Status", "enum.Enum", "How a computation ended.")
        .value("SUCCESS", Status::SUCCESS)
        .value("STEADY_STATE", Status::STEADY_STATE)
        .value("MAX_STEPS", Status::MAX_STEPS)
        .value("STEP_UNDERFLOW", Status::STEP_UNDERFLOW)
        .value("NOT_CONVERGED", Status::NOT_CONVERGED)
        .value("DIVERGED", Status::DIVERGED)
        .value("INTERRUPTED", Status::INTERRUPTED)
        .finalize();
    m.def("status_message", &message, py::arg("status"));

    py::class_<Run>(m, "Run")
        .def("advance", &Run::advance, py::arg("evaluations"),
             py::call_guard<py::gil_scoped_release>())
        .def_property_readonly("time", &Run::time)
        .def_property_readonly(
            "values",
            [](const Run& self) {
                bind::Array out = bind::allocate({self.saved(), self.observed_size()});
                std::copy_n(self.values().data(), out.size(), out.mutable_data());
                return out;
            })
        .def_property_readonly("status", &Run::status)
        .def_property_readonly("saved", &Run::saved)
        .def_property_readonly("steps", &Run::steps)
        .def_property_readonly("rejected", &Run::rejected)
        .def_property_readonly("evaluations", &Run::evaluations)
        .def_property_readonly("stiff_steps", &Run::stiff_steps);

    m.def("build_info", [] {
        return std::map<std::string, std::string>{{"version", OVERPARAM_VERSION},
                                                  {"compiler", OVERPARAM_COMPILER},
                                                  {"flags", OVERPARAM_FLAGS},
                                                  {"eigen", OVERPARAM_EIGEN}};
    });
    m.def("default_threads", &default_threads);

    m.def("has_blas", &blas::has_routines);
    m.def(
        "set_blas",
        [](const py::capsule& dgemm, const py::capsule& dsyrk, const py::capsule& dtrsm,
           const py::capsule& dpotrf) {
            blas::set_routines({reinterpret_cast<blas::Dgemm>(dgemm.get_pointer<void>()),
                                reinterpret_cast<blas::Dsyrk>(dsyrk.get_pointer<void>()),
                                reinterpret_cast<blas::Dtrsm>(dtrsm.get_pointer<void>()),
                                reinterpret_cast<blas::Dpotrf>(dpotrf.get_pointer<void>())});
        },
        py::kw_only(), py::arg("dgemm"), py::arg("dsyrk"), py::arg("dtrsm"), py::arg("dpotrf"));

    // Normals of one (seed, step, replica), for tests and the benchmark of the generator.
    m.def(
        "normals",
        [](std::uint64_t seed, Index count, std::uint64_t step, std::uint64_t replica) {
            const Index blocks = (count + 2 * LANES - 1) / (2 * LANES);
            bind::Array out = bind::allocate({blocks * 2 * LANES});
            double* p = out.mutable_data();
            {
                py::gil_scoped_release release;
                rng::fill_normals(rng::stream_key(seed, rng::Purpose::DATA), step, replica, blocks,
                                  p);
            }
            return out;
        },
        py::arg("seed"), py::arg("count"), py::arg("step") = 0, py::arg("replica") = 0);
}
