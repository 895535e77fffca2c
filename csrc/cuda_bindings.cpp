// The NVIDIA driver for Python: devices, memory on them, and launches.
#include "arrays.h"
#include "cuda/driver.h"

namespace pyengine {
namespace {

using cuda::Device;
using cuda::Driver;

// Some memory of a device, which comes back to the stream that it was allocated on: where it was used on others, the
// search that did so has waited for them before it lets go.
class Memory {
 public:
  Memory(std::shared_ptr<Device> device, int64_t n_bytes, uint64_t stream)
      : device_(std::move(device)), stream_(stream), pointer_(device_->allocate(std::max<int64_t>(n_bytes, 1), stream)) {}
  ~Memory() { device_->release(pointer_, stream_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  uint64_t pointer() const { return pointer_; }

 private:
  std::shared_ptr<Device> device_;
  uint64_t stream_, pointer_;
};

// A stream of our own.
class Stream {
 public:
  explicit Stream(std::shared_ptr<Device> device) : device_(std::move(device)), handle_(device_->make_stream()) {}
  ~Stream() { device_->drop_stream(handle_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  uint64_t handle() const { return handle_; }
  void wait() const {
    py::gil_scoped_release nogil;
    device_->wait(handle_);
  }

 private:
  std::shared_ptr<Device> device_;
  uint64_t handle_;
};

// Pinned memory of the host, as an array of bytes.
class Pinned {
 public:
  Pinned(std::shared_ptr<Device> device, int64_t n_bytes)
      : device_(std::move(device)), n_bytes_(n_bytes), memory_(device_->allocate_pinned(n_bytes)) {}
  ~Pinned() { device_->release_pinned(memory_); }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  static py::array_t<uint8_t> array(py::object self) {
    const Pinned& own = self.cast<const Pinned&>();
    return py::array_t<uint8_t>(own.n_bytes_, static_cast<uint8_t*>(own.memory_), self);
  }

 private:
  std::shared_ptr<Device> device_;
  int64_t n_bytes_;
  void* memory_;
};

void copy_in(const Device& device, uint64_t to, const py::array& from, uint64_t stream) {
  require(from.flags() & py::array::c_style, "what is copied must be contiguous");
  const void* data = from.data();
  const int64_t n_bytes = from.nbytes();
  py::gil_scoped_release nogil;
  device.copy_in(to, data, n_bytes, stream);
}

void copy_out(const Device& device, py::array to, uint64_t from, uint64_t stream) {
  require(to.flags() & py::array::c_style, "what is copied to must be contiguous");
  void* data = to.mutable_data();
  const int64_t n_bytes = to.nbytes();
  py::gil_scoped_release nogil;
  device.copy_out(data, from, n_bytes, stream);
}

void launch(Device& device, const std::string& kernel, std::array<unsigned, 3> grid, unsigned threads, unsigned shared,
            uint64_t stream, const std::vector<int64_t>& words) {
  py::gil_scoped_release nogil;
  device.launch(kernel, grid, threads, shared, stream, {words.begin(), words.end()});
}

void wait(const Device& device, uint64_t stream) {
  py::gil_scoped_release nogil;
  device.wait(stream);
}

// As signed words, which a launch takes.
std::vector<int64_t> tensor_map(const Device& device, uint64_t pointer, uint64_t width, uint64_t rows, uint64_t stride,
                                unsigned box_rows) {
  const cuda::TensorMap map = device.tensor_map(pointer, width, rows, stride, box_rows);
  return {map.begin(), map.end()};
}

}  // namespace

void bind_cuda(py::module_& m) {
  m.def("cuda_images", [] {
    std::vector<std::string> names;
    for (const cuda::Image& image : cuda::images()) names.push_back(image.name);
    return names;
  });
  py::class_<Driver, std::shared_ptr<Driver>>(m, "CudaDriver")
      .def(py::init<const std::string&>(), py::arg("library"))
      .def_property_readonly("count", &Driver::count)
      .def("capability", &Driver::capability, py::arg("device"));
  py::class_<Memory>(m, "CudaMemory")
      .def(py::init<std::shared_ptr<Device>, int64_t, uint64_t>(), py::arg("device"), py::arg("n_bytes"),
           py::arg("stream"))
      .def_property_readonly("pointer", &Memory::pointer);
  py::class_<Stream>(m, "CudaStream")
      .def(py::init<std::shared_ptr<Device>>(), py::arg("device"))
      .def_property_readonly("handle", &Stream::handle)
      .def("wait", &Stream::wait);
  py::class_<Pinned>(m, "CudaPinned")
      .def(py::init<std::shared_ptr<Device>, int64_t>(), py::arg("device"), py::arg("n_bytes"))
      .def_property_readonly("array", &Pinned::array);
  py::class_<Device, std::shared_ptr<Device>>(m, "CudaDevice")
      .def(py::init<std::shared_ptr<Driver>, int>(), py::arg("driver"), py::arg("number"))
      .def_property_readonly("number", &Device::number)
      .def_property_readonly("name", &Device::name)
      .def_property_readonly("capability", &Device::capability)
      .def_property_readonly("shared_bytes", &Device::shared_bytes)
      .def("free_bytes", &Device::free_bytes)
      .def("owner_of", &Device::owner_of, py::arg("pointer"))
      .def("copy_in", &copy_in, py::arg("to"), py::arg("array"), py::arg("stream"))
      .def("copy_out", &copy_out, py::arg("array"), py::arg("source"), py::arg("stream"))
      .def("wait", &wait, py::arg("stream"))
      .def("launch", &launch, py::arg("kernel"), py::arg("grid"), py::arg("threads"), py::arg("shared"),
           py::arg("stream"), py::arg("words"))
      .def("tensor_map", &tensor_map, py::arg("pointer"), py::arg("width"), py::arg("rows"), py::arg("stride"),
           py::arg("box_rows"));
}

}  // namespace pyengine
