// A libnvidia-ml.so.1 without a GPU: what it says, and the error of a function, are set by name.
#include <map>
#include <string>

namespace {
std::map<std::string, int> told;
int setting(const char* name, int otherwise) {
  const auto found = told.find(name);
  return found == told.end() ? otherwise : found->second;
}
int open_times = 0;
}  // namespace

extern "C" {
void fake_tell(const char* name, int value) { told[name] = value; }
void fake_forget() { told.clear(); }
int fake_open() { return open_times; }

int nvmlInit_v2() { return setting("nvmlInit_v2", 0) ? 1 : (++open_times, 0); }
int nvmlShutdown() { return --open_times, 0; }
int nvmlSystemGetCudaDriverVersion_v2(int* version) { return *version = setting("version", 13000), 0; }
int nvmlDeviceGetCount_v2(unsigned* count) { return *count = setting("devices", 2), setting("nvmlDeviceGetCount_v2", 0); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** gpu) { return *gpu = reinterpret_cast<void*>(index + 1L), 0; }
int nvmlDeviceGetMigMode(void*, unsigned* now, unsigned* then) {
  *now = *then = setting("parted", 0) > 0;
  return setting("parted", 0) < 0 ? 3 : 0;  // not supported
}
int nvmlDeviceGetCudaComputeCapability(void* gpu, int* major, int* minor) {
  *major = gpu == reinterpret_cast<void*>(1L) ? setting("first", 9) : 9;
  return *minor = 0, setting("nvmlDeviceGetCudaComputeCapability", 0);
}
}
