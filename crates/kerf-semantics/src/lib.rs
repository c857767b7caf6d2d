//! What x86-64 machine code means: symbolic execution, liveness, proofs.
