// Breakout-MinAtar as a plain C loop: random actions, sticky actions, auto-reset, the trajectory stored.
// Rules as in jaxrl/envs/breakout.py.
#include <stdint.h>
#include <string.h>

#define WALL ((1u << 30) - 1)

typedef struct {
    int32_t paddle, x, y, dx, dy, trail;
    uint32_t bricks;
    int32_t struck, last;
    uint32_t random;
} Env;

static inline uint32_t draw(Env *env) {  // xorshift32, Marsaglia (2003)
    uint32_t r = env->random;
    r ^= r << 13, r ^= r >> 17, r ^= r << 5;
    return env->random = r;
}

static inline void reset(Env *env) {
    int left = draw(env) >> 31;
    env->paddle = 4, env->y = 3, env->dy = 1, env->last = 0, env->struck = 0, env->bricks = WALL;
    env->x = left ? 9 : 0, env->dx = left ? -1 : 1, env->trail = 30 + env->x;
}

static inline void observe(const Env *env, uint8_t *obs) {
    memset(obs, 0, 400);
    obs[4 * (90 + env->paddle)] = 1;
    obs[4 * (10 * env->y + env->x) + 1] = 1;
    obs[4 * env->trail + 2] = 1;
    for (int cell = 0; cell < 30; cell++) obs[4 * (cell + 10) + 3] = env->bricks >> cell & 1;
}

void breakout_reset(Env *envs, int number, uint32_t seed) {
    for (int i = 0; i < number; i++) {
        envs[i].random = (seed + i) * 2654435761u | 1u;
        for (int k = 0; k < 8; k++) draw(&envs[i]);
        reset(&envs[i]);
    }
}

void breakout_run(Env *envs, int number, int steps, uint8_t *obs, uint8_t *next_obs, int32_t *action, float *reward,
                  uint8_t *terminated, uint8_t *truncated) {
    for (int t = 0; t < steps; t++) {
        for (int i = 0; i < number; i++) {
            Env *env = &envs[i];
            long row = (long)t * number + i;
            observe(env, obs + 400 * row);
            uint32_t word = draw(env);
            int chosen = (int)((uint64_t)draw(env) * 3 >> 32);  // 0 nothing, 1 left, 2 right
            action[row] = chosen;
            if ((word >> 8) * (1.0f / 16777216.0f) < 0.1f) chosen = env->last;
            env->last = chosen;
            if (chosen == 1 && env->paddle > 0) env->paddle--;
            if (chosen == 2 && env->paddle < 9) env->paddle++;
            int old_x = env->x, old_y = env->y, end = 0, touches = 0;
            float paid = 0;
            env->trail = 10 * old_y + old_x;
            int x = old_x + env->dx, y = old_y + env->dy;
            if (x < 0 || x > 9) x = x < 0 ? 0 : 9, env->dx = -env->dx;
            if (y < 0) {
                y = 0, env->dy = 1;
            } else if (y >= 1 && y <= 3 && env->bricks >> (10 * y + x - 10) & 1) {
                touches = 1;
                if (!env->struck) {
                    paid = 1, env->bricks &= ~(1u << (10 * y + x - 10)), y = old_y, env->dy = -env->dy;
                }
            } else if (y == 9) {
                if (!env->bricks) env->bricks = WALL;
                if (old_x == env->paddle) {
                    env->dy = -env->dy, y = old_y;
                } else if (x == env->paddle) {
                    env->dx = -env->dx, env->dy = -env->dy, y = old_y;
                } else {
                    end = 1;
                }
            }
            env->x = x, env->y = y, env->struck = touches;
            observe(env, next_obs + 400 * row);
            reward[row] = paid, terminated[row] = end, truncated[row] = 0;
            if (end) reset(env);
        }
    }
}
