#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <utility>
#include <vector>

#include "bind/array.hpp"
#include "networks/curvature.hpp"

namespace py = pybind11;
using namespace overparam;
using bind::allocate;
using bind::Array;
using bind::copy;
using bind::require_shape;

namespace {

// The curvature with the arrays that it refers to.
class Curvature {
  public:
    Curvature(Array W, const Array& a, double offset, SampleSource source, std::vector<Array> kept)
        : W_(std::move(W)),
          kept_(std::move(kept)),
          size_(W_.size()),
          curvature_(std::move(source), W_.data(), copy(a), offset) {}

    Array apply(const Array& V, int threads) const {
        const Index count = V.shape(0);
        require_shape("V", V, {count, size_});
        Array out = allocate({count, size_});
        double* values = out.mutable_data();
        const double* directions = V.data();
        py::gil_scoped_release release;
        curvature_.apply(directions, count, threads, values);
        return out;
    }

  private:
    Array W_;
    std::vector<Array> kept_;
    Index size_;
    QuadraticCurvature curvature_;
};

}  // namespace

void bind_hessian(py::module_& m) {
    py::class_<Curvature>(m, "QuadraticCurvature")
        .def_static(
            "given",
            [](const Array& W, const Array& a, double offset, const Array& X, const Array& y) {
                SampleSource source;
                source.n = X.shape(0);
                source.N = X.shape(1);
                require_shape("W", W, {static_cast<Index>(a.size()), source.N});
                require_shape("y", y, {source.n});
                source.X = X.data();
                source.y = y.data();
                return std::make_unique<Curvature>(W, a, offset, std::move(source),
                                                   std::vector<Array>{X, y});
            },
            py::arg("W"), py::arg("a"), py::arg("offset"), py::arg("X"), py::arg("y"))
        .def_static(
            "drawn",
            [](const Array& W, const Array& a, double offset, Index count, std::uint64_t seed,
               const Array& W_star, const Array& a_star, double noise) {
                SampleSource source;
                source.n = count;
                source.N = W_star.shape(1);
                require_shape("W", W, {static_cast<Index>(a.size()), source.N});
                require_shape("W_star", W_star, {static_cast<Index>(a_star.size()), source.N});
                source.seed = seed;
                source.W_star = W_star.data();
                source.a_star = copy(a_star);
                source.noise = noise;
                return std::make_unique<Curvature>(W, a, offset, std::move(source),
                                                   std::vector<Array>{W_star});
            },
            py::arg("W"), py::arg("a"), py::arg("offset"), py::arg("count"), py::arg("seed"),
            py::arg("W_star"), py::arg("a_star"), py::arg("noise"))
        .def("apply", &Curvature::apply, py::arg("V"), py::arg("threads"));
}
