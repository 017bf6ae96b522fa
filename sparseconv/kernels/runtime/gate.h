// A way to something that is closed for good one day, while other threads may be on it.
#pragma once
#include <atomic>
#include <chrono>
#include <thread>

namespace sparseconv {

class gate {
public:
    // Whether the way is open. Who is let in has to leave.
    bool enter() {
        inside_.fetch_add(1);
        if (!closed_.load()) return true;
        leave();
        return false;
    }
    void leave() { inside_.fetch_sub(1); }

    // Lets nobody in from now on, and waits until all have left: for a second at most, since after a fork those who
    // were inside are not there to leave.
    void close() {
        closed_.store(true);
        for (int waited = 0; inside_.load() > 0 && waited < 1000; ++waited) {
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    }

private:
    std::atomic<int> inside_{0};
    std::atomic<bool> closed_{false};
};

}  // namespace sparseconv
