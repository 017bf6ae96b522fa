#include "runtime/openmp_team.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <atomic>
#include <new>
#include <string>
#include <vector>

#if defined(__APPLE__)
#include <mach-o/dyld.h>
#else
#include <link.h>
#endif

namespace sparseconv {

namespace {

// --- calling it ---

struct region_call {
    void (*region)(void *, int);
    void *context;
    int (*thread_num)();

    static void gomp(void *self) {
        const region_call *call = static_cast<region_call *>(self);
        call->region(call->context, call->thread_num());
    }
    static void kmpc(int *, int *, void *self) { gomp(self); }
};

// What libomp calls ident_t: where in the source the region is, here nowhere; 2 says that the caller speaks KMPC.
struct {
    int32_t reserved_1 = 0, flags = 2, reserved_2 = 0, reserved_3 = 0;
    const char *source = ";unknown;unknown;0;0;;";
} nowhere;

// --- the libraries of this process ---

#if defined(__APPLE__)

unsigned long long libraries_loaded() { return _dyld_image_count(); }

std::vector<std::string> libraries() {
    std::vector<std::string> paths;
    for (uint32_t image = 0; image < _dyld_image_count(); ++image) {
        if (const char *path = _dyld_get_image_name(image)) paths.emplace_back(path);
    }
    return paths;
}

#else

unsigned long long libraries_loaded() {
    unsigned long long loads = 0;
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *to) {
            *static_cast<unsigned long long *>(to) = info->dlpi_adds;
            return 1;  // the first library knows
        },
        &loads);
    return loads;
}

struct listing {
    std::vector<std::string> paths;
    bool whole = true;
};

std::vector<std::string> libraries() {
    listing all;
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *to) {
            listing *list = static_cast<listing *>(to);
            try {
                if (info->dlpi_name && *info->dlpi_name) list->paths.emplace_back(info->dlpi_name);
            } catch (const std::bad_alloc &) {  // must not pass through the loader, which holds a lock
                list->whole = false;
            }
            return list->whole ? 0 : 1;
        },
        &all);
    if (!all.whole) throw std::bad_alloc();
    return all.paths;
}

#endif

bool is_called(const std::string &path, const char *name) {
    const size_t slash = path.rfind('/');
    return path.compare(slash == std::string::npos ? 0 : slash + 1, strlen(name), name) == 0;
}

// A library that is loaded, with what it depends on; never loads one.
class library {
public:
    explicit library(const char *path) : handle_(dlopen(path, RTLD_LAZY | RTLD_NOLOAD)) {}
    ~library() {
        if (handle_ && !kept_) dlclose(handle_);
    }
    library(const library &) = delete;
    library &operator=(const library &) = delete;
    void *handle() const { return handle_; }
    void keep() { kept_ = true; }  // in memory until the process ends

private:
    void *handle_;
    bool kept_ = false;
};

template <class Function>
bool find(Function &function, void *scope, const char *name) {
    function = reinterpret_cast<Function>(dlsym(scope, name));
    return function != nullptr;
}

// The runtime that a library in this scope would call; false if there is none.
bool runtime_of(void *scope, openmp_runtime &found) {
    for (const char *name : {"GOMP_parallel", "__kmpc_fork_call"}) {
        Dl_info where;
        void *entry = dlsym(scope, name);
        if (!entry || !dladdr(entry, &where) || !where.dli_fname) continue;
        library owner(where.dli_fname);  // all entries of one library; the main program is not opened by its name
        void *from = owner.handle() ? owner.handle() : scope;
        found = {};
        const bool gomp = find(found.gomp_parallel_, from, "GOMP_parallel");
        const bool kmpc = !gomp && find(found.fork_call_, from, "__kmpc_fork_call") &&
                          find(found.global_thread_num_, from, "__kmpc_global_thread_num") &&
                          find(found.push_num_threads_, from, "__kmpc_push_num_threads");
        if (!(gomp || kmpc) || !find(found.thread_num_, from, "omp_get_thread_num") ||
            !find(found.max_threads_, from, "omp_get_max_threads")) {
            continue;
        }
        owner.keep();
        found.path_ = where.dli_fname;
        return true;
    }
    return false;
}

bool search(openmp_runtime &found) {
    const std::vector<std::string> paths = libraries();
    for (const std::string &path : paths) {
        if (!is_called(path, "libtorch_cpu.")) continue;
        const library torch(path.c_str());
        // ELF's loader gives libtorch_cpu the first definition in the global scope, and looks among its own
        // dependencies only then; that of macOS goes straight there.
#if !defined(__APPLE__)
        if (runtime_of(RTLD_DEFAULT, found)) return found.final_ = true;
#endif
        if (torch.handle() && runtime_of(torch.handle(), found)) return found.final_ = true;
    }
    if (runtime_of(RTLD_DEFAULT, found)) return true;
    for (const std::string &path : paths) {
        if (!is_called(path, "libgomp") && !is_called(path, "libomp") && !is_called(path, "libiomp")) continue;
        const library one(path.c_str());
        if (one.handle() && runtime_of(one.handle(), found)) return true;
    }
    return false;
}

// --- forks ---

#if defined(__linux__)

class text_file {
public:
    explicit text_file(const char *path) : file_(fopen(path, "re")) {}
    ~text_file() {
        if (file_) fclose(file_);
        free(line_);
    }
    text_file(const text_file &) = delete;
    text_file &operator=(const text_file &) = delete;
    const char *next() { return file_ && getline(&line_, &room_, file_) > 0 ? line_ : nullptr; }

private:
    FILE *file_;
    char *line_ = nullptr;
    size_t room_ = 0;
};

// Whether this process has run no program of its own since it was forked: PF_FORKNOEXEC, 0x40, of the ninth field.
bool forked_without_exec() {
    text_file stat("/proc/self/stat");
    const char *line = stat.next(), *fields = line ? strrchr(line, ')') : nullptr;
    unsigned flags = 0;
    return fields && sscanf(fields + 1, " %*c %*d %*d %*d %*d %*d %u", &flags) == 1 && (flags & 0x40);
}

struct mapped {
    std::string vdso;  // its place is drawn anew for each program: parent and forked child share it
    bool library = false;
};

mapped mapped_in(const char *maps, const char *path) {
    mapped seen;
    text_file file(maps);
    while (const char *line = file.next()) {
        if (strstr(line, "[vdso]")) seen.vdso = line;
        if (strstr(line, path)) seen.library = true;
    }
    return seen;
}

// Whether a library may have been loaded, and used, before this process was forked. It was not where the parent, who
// must be the one that forked, does not have it: the usual case of a server that forks before anything is imported.
bool may_be_older_than_fork(const char *path) {
    if (!forked_without_exec()) return false;
    const std::string parent = "/proc/" + std::to_string(getppid()) + "/maps";
    const mapped theirs = mapped_in(parent.c_str(), path), ours = mapped_in("/proc/self/maps", path);
    return ours.vdso.empty() || theirs.vdso != ours.vdso || theirs.library;
}

#else

bool may_be_older_than_fork(const char *) { return false; }  // libomp starts anew in a forked child

#endif

std::atomic<const openmp_runtime *> ready{nullptr}, counted{nullptr};
std::atomic<unsigned long long> loads_seen{0};
std::atomic<bool> forked{false};  // with a runtime that may have had threads

void after_fork_in_child() {
    if (ready.exchange(nullptr)) forked = true;
}

}  // namespace

void openmp_runtime::run(void (*region)(void *, int), void *context, int threads) const {
    region_call call = {region, context, thread_num_};
    // A team of the size that others ask for, of whom the region leaves out those that it does not need: libgomp ends
    // the threads that a smaller team does without, and starts them again for the next one.
    const int size = threads > max_threads() ? threads : 0;
    if (gomp_parallel_) {
        gomp_parallel_(region_call::gomp, &call, (unsigned)size, 0);
    } else {
        if (size) push_num_threads_(&nowhere, global_thread_num_(&nowhere), size);
        fork_call_(&nowhere, 1, reinterpret_cast<void (*)(int *, int *, ...)>(region_call::kmpc), &call);
    }
}

// Without a lock, which a fork could leave locked: two threads that look at the same time find the same.
const openmp_runtime *openmp() {
    const openmp_runtime *known = ready.load(std::memory_order_acquire);
    if ((known && known->final_) || forked.load(std::memory_order_relaxed)) return known;
    const unsigned long long loads = libraries_loaded();
    if (loads_seen.exchange(loads) == loads) return known;
    static const int failed = pthread_atfork(nullptr, nullptr, after_fork_in_child);
    if (failed) return nullptr;
    try {
        openmp_runtime found;
        if (!search(found)) return known;
        if (known && !strcmp(known->path_, found.path_) && known->final_ == found.final_) return known;
        if (may_be_older_than_fork(found.path_)) {
            forked = true, counted = known ? known : new openmp_runtime(found);
            ready = nullptr;
            return nullptr;
        }
        counted = known = new openmp_runtime(found);  // for good: others may be about to call it
        ready.store(known, std::memory_order_release);
    } catch (const std::bad_alloc &) {  // then later
        loads_seen = 0;
    }
    return known;
}

const openmp_runtime *openmp_counted() {
    const openmp_runtime *usable = openmp();
    return usable ? usable : counted.load(std::memory_order_acquire);
}

bool openmp_forked() { return forked.load(std::memory_order_relaxed); }

}  // namespace sparseconv
