// A GPU made of the CPU: it runs the PTX that the kernels are compiled to, one lane after the
// other, so that what they compute can be tested where there is no device. It knows the
// instructions that Nibble's kernels have and says which one it lacks. Copies arrive some time
// after they were asked for, cp.async's when they are waited for; a product is done at once, but
// nobody may write what it reads before it was waited for.
#pragma once

#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nibble::emulator {

inline constexpr uint8_t kGarbage = 0xD6;  // in memory that nobody has written yet
inline constexpr int kLanes = 32;
inline constexpr uint32_t kAllLanes = ~0u;

// What a kernel did that a GPU would stop it for, or what the emulator does not know.
struct Fault : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Warp;
struct Instruction;
using Run = void (*)(Warp&, const Instruction&, uint32_t lanes);

// A register's 32 lanes lie side by side, `width` bytes each (a predicate is one word of bits).
// Constants lie likewise in a file of their own, whose offsets have the highest bit set.
struct Operand {
  uint32_t at = 0;
  int32_t offset = 0;  // of an address
  uint8_t width = 0;   // 0: a predicate
};
inline constexpr uint32_t kConstant = 1u << 31;
inline constexpr uint32_t kNoGuard = ~0u;

enum class Kind : uint8_t {
  kPlain,
  kBranch,
  kExit,
  kCollective,  // runs once every live lane of the warp, or of operand `members`, is there
  kBarrier,     // of the block
  kRetry,       // runs again until Warp::retry stays false
};

struct Instruction {
  Run run = nullptr;
  Kind kind = Kind::kPlain;
  uint32_t guard = kNoGuard;  // a predicate register
  bool negated = false;
  uint32_t target = 0;  // of a branch
  int members = -1;     // which operand holds the lanes of a collective; -1: all that live
  int extra = 0;        // whatever the instruction has chosen at its decoding
  std::vector<Operand> operands;
  std::string text;
};

// A kernel's parameters, from the PTX.
struct Parameter {
  size_t offset, bytes;
};

struct Function {
  std::string name;
  std::vector<Instruction> code;
  std::vector<Parameter> parameters;
  size_t parameter_bytes = 0;
  size_t register_bytes = 0;
  size_t shared_bytes = 0;  // static; dynamic shared memory follows it
  size_t local_bytes = 0;   // of a lane
  uint32_t most_threads = 1024;
  std::vector<uint8_t> constants;
};

// Registers that every warp begins with, in this order, as 32-bit numbers; behind them the address
// of the lane's local memory.
enum Special {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kClusterCtarank,
  kClusterNctarank,
  kClusterIdX,
  kNClusterIdX,
  kSmId,
  kSpecials
};
inline constexpr uint32_t kSpecialBytes = kLanes * 4;
inline constexpr uint32_t kLocalBase = kSpecials * kSpecialBytes;
inline constexpr uint32_t kFirstRegister = kLocalBase + kLanes * 8;
std::map<std::string, Special, std::less<>> special_registers();

struct Dim {
  uint32_t x = 1, y = 1, z = 1;
  uint32_t count() const { return x * y * z; }
};

struct Launch {
  const Function* function;
  Dim grid, block, cluster;
  size_t dynamic_shared = 0;
  std::vector<uint8_t> parameters;
};

// Shared memory begins here, as on sm_90: an address of 0 is a mistake. Above come the blocks of
// the cluster, at (rank + 1) << kRankShift; an address below is the block's own.
inline constexpr uint32_t kSharedBase = 1024;
inline constexpr uint32_t kRankShift = 24;

struct Cluster;

struct Block {
  Cluster* cluster = nullptr;
  std::vector<uint8_t> shared_storage;
  uint8_t* shared = nullptr;
  uint32_t shared_end = 0;
  std::vector<std::unique_ptr<Warp>> warps;
  struct Barrier {
    uint32_t arrived = 0, expected = 0;
    std::vector<Warp*> waiting;
  };
  std::map<uint32_t, Barrier> barriers;

  // Barrier `id` of `threads`, 0 for the whole block: its warps go on once all have come.
  void arrive(uint32_t id, uint32_t threads, Warp* waiting);
  void check_barriers();
};

struct Cluster {
  std::vector<std::unique_ptr<Block>> blocks;
  // Copies on their way, each to a block.
  struct Delivery {
    const Block* to;
    std::function<void()> arrive;
  };
  std::vector<Delivery> under_way;
  // Lets about half of them arrive. A Fault for one whose block has ended.
  void deliver();
  uint32_t phase = 0;
  // The next phase once every warp that has not ended is there.
  void check_arrived();
};

// What is under way in groups, the oldest first.
template <class T>
class Groups {
 public:
  void add(T one) { all_.push_back(one); }
  void commit() { ends_.push_back(all_.size()); }
  // f of all but the latest `pending` groups.
  template <class F>
  void wait(size_t pending, const F& f) {
    for (; ends_.size() - over_ > pending; ++over_) {
      for (; next_ < ends_[over_]; ++next_) f(all_[next_]);
    }
    if (over_ < ends_.size() || next_ < all_.size()) return;
    all_.clear();
    ends_.clear();
    next_ = over_ = 0;
  }

 private:
  std::vector<T> all_;
  std::vector<size_t> ends_;    // of the groups, in all_
  size_t next_ = 0, over_ = 0;  // how far those are that were waited for
};

struct Warp {
  struct Copy {  // cp.async
    uint8_t* to;
    const void* from;
    uint32_t bytes, valid;
  };
  struct Read {  // of a product: B in shared memory
    uint32_t start, stride, columns;
    uint64_t hash;
  };
  Groups<Copy> copies;
  Groups<Read> products;

  Block* block = nullptr;
  const Launch* launch = nullptr;
  std::vector<uint8_t> registers;  // not cleared: as a warp before has left it
  std::vector<uint8_t> local;
  const uint8_t* constants = nullptr;
  uint32_t pc[kLanes] = {};
  uint32_t live = 0;    // lanes that have not exited
  uint32_t active = 0;  // those that run now, at `at`
  uint32_t at = 0;
  uint32_t tired = 0;  // lanes that have just waited in vain: others first
  bool at_barrier = false;
  bool yield = false;  // set by an instruction that found nothing to go on with
  bool retry = false;
  uint32_t cluster_phase = 0;  // that it has arrived for

  template <class T>
  T* values(const Operand& o) {
    uint8_t* base = o.at & kConstant ? const_cast<uint8_t*>(constants) : registers.data();
    return reinterpret_cast<T*>(base + (o.at & ~kConstant));
  }
  template <class T>
  void put(const Operand& o, const T* from, uint32_t lanes) {
    T* to = values<T>(o);
    if (lanes == kAllLanes) {
      std::memcpy(to, from, sizeof(T) * kLanes);
    } else {
      for (int l = 0; l < kLanes; ++l) to[l] = lanes >> l & 1 ? from[l] : to[l];
    }
  }
  uint32_t& predicate(const Operand& o) { return *values<uint32_t>(o); }
  void put_predicate(const Operand& o, uint32_t bits, uint32_t lanes) {
    uint32_t& to = predicate(o);
    to = (to & ~lanes) | (bits & lanes);
  }
  uint64_t address(const Operand& o, int lane) {
    const int64_t base = o.width == 8 ? values<int64_t>(o)[lane] : values<uint32_t>(o)[lane];
    return static_cast<uint64_t>(base + o.offset);
  }
  // Where it is in this machine's memory; a Fault where the kernel may not go there.
  uint8_t* shared(uint64_t address, size_t bytes) {
    if (address >= kSharedBase && address + bytes <= block->shared_end && address % bytes == 0) {
      return block->shared + address;
    }
    return other_shared(address, bytes);
  }
  uint8_t* global(uint64_t address, size_t bytes);
  // The block that an address of shared memory is in.
  const Block& block_of(uint64_t address) const;

  // Runs until it ends or waits.
  void run();
  bool done() const { return live == 0; }

 private:
  uint8_t* other_shared(uint64_t address, size_t bytes);
  void choose_lanes();
  uint32_t ready(const Instruction& i, uint32_t lanes);
};

template <class F>
void for_lanes(uint32_t lanes, const F& f) {
  for (; lanes != 0; lanes &= lanes - 1) f(__builtin_ctz(lanes));
}

// Counts what other warps may wait for: stores, arrivals, ends.
extern uint64_t events;

// Global memory, so that accesses outside of what was allocated are found.
class Memory {
 public:
  void* allocate(size_t bytes);
  bool free(void* p);
  bool contains(uint64_t address, size_t bytes) const;

 private:
  std::map<uint64_t, size_t> all_;
  mutable uint64_t begin_ = 0, end_ = 0;  // the last one found
};
Memory& memory();

// Runs the grid to its end. Throws Fault.
void run(const Launch& launch);

// PTX, a kernel decoded when it is first asked for.
class Module {
 public:
  explicit Module(std::string ptx) : text_(std::move(ptx)) {}
  const Function& kernel(const std::string& name);

 private:
  friend class Decoder;
  struct Body {
    std::string head, code;
  };
  void read();

  std::string text_;  // until it is read
  std::map<std::string, Body> bodies_;
  std::vector<std::string> variables_;
  std::map<std::string, std::unique_ptr<Function>> decoded_;
  std::map<std::string, std::unique_ptr<uint8_t[]>> globals_;
};

// An instruction by its name: how to run it, and what its operands are: bytes of a lane, 0 for a
// predicate, kAddress for [...].
inline constexpr uint8_t kAddress = 255;
struct Operation {
  Run run = nullptr;
  std::vector<uint8_t> widths;
  Kind kind = Kind::kPlain;
  int members = -1;
  int extra = 0;
};
// What an instruction's name leaves open.
struct Shape {
  int braced[2] = {1, 1};  // operands in braces, of the first and of the second
  int operands = 0;        // in all
  int register_width = 0;  // of the first register that is no address; 0: there is none
};
Operation operation(const std::string& name, const Shape& shape);

using Operations = std::map<std::string, Operation, std::less<>>;
void add_arithmetic(Operations& all);
void add_collectives(Operations& all);
void add_asynchronous(Operations& all);

}  // namespace nibble::emulator
