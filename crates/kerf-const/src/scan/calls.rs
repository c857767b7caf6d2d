//! What functions and macros of the kernel do with their arguments, by name.

use super::context::Role;

/// Parts of names of timers and sleeps: their argument is a time.
const TIMED: &str = "\
    jiffies mod_timer delayed_work schedule_timeout _timeout ktime_add ktime_sub ms_to_ktime ns_to_ktime us_to_ktime \
    hrtimer_ time_after time_before time_in_range rearm ktime_set ktime_after ktime_before ktime_compare sk_reset_timer \
    start_timer tcp_reset_xmit_timer queue_delayed blk_mq_delay __mod_timer schedule_delayed timer_reduce";

/// Waits in the middle of work, nearly always because a device wants them.
const DELAYS: &str = "\
    udelay mdelay ndelay usleep_range msleep fsleep poll_timeout read_poll sleep_range ssleep poll_reg";

/// Minima, maxima and clamps.
const BOUNDS: &str = "\
    min max min_t max_t clamp clamp_t clamp_val min3 max3 min_not_zero umin umax min_unless_zero";

/// Parts of names of what allocates, copies, prints or reads text.
const ALLOCATIONS: &str = "\
    alloc memcpy memset memcmp memmove strncmp strncpy strscpy snprintf strlcpy strncasecmp copy_from copy_to skb_put \
    skb_reserve seq_ print_hex kstrto simple_strto strto";

/// Parts of names of what reads and writes registers, bits and fields of messages.
const REGISTERS: &str = "\
    write read outb outw outl inb inw inl regmap set_bit clear_bit test_bit reg_ _reg BIT GENMASK FIELD_ iowrite ioread \
    i2c_ mmio msr cpu_to_ _to_cpu htons htonl REG_";

/// Parts of names of what aligns.
const ALIGNS: &str = "\
    ALIGN align roundup rounddown round_up round_down PTR_ALIGN IS_ALIGNED";

/// Calls that hand their argument on as it is, or scaled.
const TRANSPARENT: &str = "\
    READ_ONCE likely unlikely ilog2 cpu_to_le32 abs div_u64 div64_u64 div_s64 do_div mult_frac DIV_ROUND_UP \
    DIV_ROUND_CLOSEST mul_u64_u32_shr roundup_pow_of_two rounddown_pow_of_two";

/// What a call means for one of its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// The argument goes on to where the result goes; `true`: as a factor.
    On(bool),
    /// The argument ends there.
    Ends(Role),
    /// Nobody knows: the function is one of many.
    Unknown,
}

/// What a function does with its arguments.
pub fn call(name: &str) -> Call {
    let is = |list: &str| list.split_whitespace().any(|known| known == name);
    let has = |list: &str| list.split_whitespace().any(|part| name.contains(part));
    if is(TRANSPARENT) {
        return Call::On(["div", "DIV", "mul"].iter().any(|start| name.starts_with(start)));
    }
    if is(BOUNDS) {
        return Call::Ends(Role::Bound);
    }
    let kinds = [
        (DELAYS, Role::Delay),
        (TIMED, Role::Interval),
        (ALIGNS, Role::Align),
        (ALLOCATIONS, Role::Size),
        (REGISTERS, Role::Register),
    ];
    kinds.into_iter().find(|(list, _)| has(list)).map_or(Call::Unknown, |(_, role)| Call::Ends(role))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_known_by_their_names() {
        for (name, call_is) in [
            ("READ_ONCE", Call::On(false)),
            ("DIV_ROUND_UP", Call::On(true)),
            ("min_t", Call::Ends(Role::Bound)),
            ("schedule_delayed_work", Call::Ends(Role::Interval)),
            ("usleep_range", Call::Ends(Role::Delay)),
            ("kmalloc_array", Call::Ends(Role::Size)),
            ("round_up", Call::Ends(Role::Align)),
            ("regmap_write", Call::Ends(Role::Register)),
            ("blk_flush_plug", Call::Unknown),
        ] {
            assert_eq!(call(name), call_is, "{name}");
        }
    }
}
