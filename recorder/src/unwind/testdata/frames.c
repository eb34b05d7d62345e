// What the ELF files next to this are made of:
//
//   clang-14 --target=aarch64-linux-gnu -O1 -fPIC -shared -nostdlib -fuse-ld=lld \
//       -fasynchronous-unwind-tables -mbranch-protection=pac-ret -Wl,--build-id,--eh-frame-hdr,-s -o frames.aarch64 frames.c
//   clang-14 --target=x86_64-linux-gnu -O1 -fPIC -shared -nostdlib -fuse-ld=lld \
//       -fasynchronous-unwind-tables -fomit-frame-pointer -Wl,--build-id,--eh-frame-hdr,-s -o frames.x86_64 frames.c
//
// Tests read them and never run them.

extern int elsewhere(volatile char *);

int leaf(int x) { return 3 * x; }

int normal(int x) {
    volatile char small[32];
    small[0] = x;
    return elsewhere(small) + x;
}

int big(int x) {
    volatile char large[300000];
    large[x] = 1;
    return elsewhere(large) + large[x + 1];
}

int variable(int x) {
    volatile char *some = __builtin_alloca(x);
    some[0] = 1;
    return elsewhere(some) + x;
}

// The kernel returns here from a signal handler: `svc` and `syscall` stand for themselves.
#if defined(__aarch64__)
__asm__(".globl trampoline\n.type trampoline, %function\ntrampoline:\n.cfi_startproc\n.cfi_signal_frame\n"
        "mov x8, #139\nsvc #0\n.cfi_endproc\n.size trampoline, .-trampoline\n");
__asm__(".globl begin\n.type begin, %function\nbegin:\n.cfi_startproc\n.cfi_undefined x30\n"
        "mov x29, #0\nbl normal\nbrk #1\n.cfi_endproc\n.size begin, .-begin\n");
#else
__asm__(".globl trampoline\n.type trampoline, @function\ntrampoline:\n.cfi_startproc\n.cfi_signal_frame\n"
        "mov $15, %eax\nsyscall\n.cfi_endproc\n.size trampoline, .-trampoline\n");
__asm__(".globl begin\n.type begin, @function\nbegin:\n.cfi_startproc\n.cfi_undefined rip\n"
        "xor %ebp, %ebp\ncall normal@plt\nud2\n.cfi_endproc\n.size begin, .-begin\n");
#endif
