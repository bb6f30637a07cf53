// The only place that knows NumPy layouts: contiguous float64 views with a shape that was checked.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/typing.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "base/errors.hpp"
#include "base/types.hpp"

namespace overparam::bind {

namespace py = pybind11;

// An input: converted to contiguous float64 if need be.
using Array = py::array_t<double, py::array::c_style | py::array::forcecast>;
// An array that is written in place: it must already be contiguous float64.
using InOut = py::array_t<double, py::array::c_style>;

inline std::string shape_text(const std::vector<Index>& shape) {
    std::string text = "(";
    for (std::size_t i = 0; i < shape.size(); ++i) {
        text += (i ? ", " : "") + std::to_string(shape[i]);
    }
    return text + (shape.size() == 1 ? ",)" : ")");
}

template <class A>
void require_shape(const char* name, const A& array, const std::vector<Index>& shape) {
    const std::vector<Index> has(array.shape(), array.shape() + array.ndim());
    if (has != shape) {
        throw ArgumentError(name, "an array of shape " + shape_text(shape),
                            "of shape " + shape_text(has));
    }
}

inline Array allocate(const std::vector<Index>& shape) { return Array(shape); }

inline std::vector<double> copy(const Array& x) { return {x.data(), x.data() + x.size()}; }

// Arrays of several types by name.
using Arrays = py::typing::Dict<py::str, py::array>;

template <class T>
bool holds(const Arrays& arrays, const char* name) {
    return py::isinstance<py::array_t<T, py::array::c_style>>(arrays[name]);
}

// The entries of one of them, which are written in place.
template <class T>
T* entries(const Arrays& arrays, const char* name, const std::vector<Index>& shape) {
    if (!holds<T>(arrays, name)) throw ArgumentError(name, "contiguous and of its type", "not");
    auto array = py::reinterpret_borrow<py::array_t<T, py::array::c_style>>(arrays[name]);
    require_shape(name, array, shape);
    return array.mutable_data();
}

}  // namespace overparam::bind
