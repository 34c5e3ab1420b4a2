// Threads for the length of a loop.
#pragma once
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

// work(thread) once per thread.
template <class F>
void on_threads(int threads, F work) {
  std::vector<std::thread> others;
  for (int t = 1; t < threads; ++t) others.emplace_back([&, t] { work(t); });
  work(0);
  for (auto& other : others) other.join();
}

// work(begin, end) over 0..n in pieces of `grain`; who is free takes the next. Only for results of their own place.
template <class F>
void parallel_for(int threads, long n, long grain, F work) {
  std::atomic<long> next{0};
  threads = (int)std::min<long>(threads, (n + grain - 1) / grain);
  on_threads(std::max(threads, 1), [&](int) {
    for (long begin; (begin = next.fetch_add(grain)) < n;) work(begin, std::min(begin + grain, n));
  });
}
