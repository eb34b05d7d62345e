/* `inlined.x86_64` is made of this, by gcc 12:
 *
 *   gcc -O2 -g -gdwarf-5 -shared -fPIC -nostdlib -fdebug-prefix-map="$PWD"=/source -Wl,--build-id,-z,noseparate-code inlined.c -o inlined.x86_64
 */
static volatile int sink;

static inline __attribute__((always_inline)) int innermost(int value) {
    sink = value;
    return sink * 3;
}

static inline __attribute__((always_inline)) int between(int value) {
    sink = value + 1;
    return innermost(value) ^ sink;
}

__attribute__((noinline)) int outermost(int value) {
    sink = value + 2;
    return between(value) + sink;
}

__attribute__((noinline, noreturn)) void forever(int value) {
    for (;;) sink = value;
}

/* The call is its last instruction: what it would return to is `behind`. */
void never_returns(int value) {
    sink = value;
    forever(value);
}

int behind(int value) { return outermost(value) + 1; }

/* Labels without a type or a size, and a function that only the assembler knows. */
__asm__(".text\n"
        "unsized:\n nop\n nop\n ret\n"
        ".globl sized\n.type sized, @function\nsized:\n nop\n ret\n.size sized, . - sized\n");
