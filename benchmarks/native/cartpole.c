// CartPole-v1 as a plain C loop: random actions, auto-reset, the trajectory stored. Rules as in jaxrl/envs/cartpole.py.
#include <math.h>
#include <stdint.h>

typedef struct {
    float x, x_dot, theta, theta_dot;
    int32_t time;
    uint32_t random;
} Env;

static inline uint32_t draw(Env *env) {  // xorshift32, Marsaglia (2003)
    uint32_t r = env->random;
    r ^= r << 13, r ^= r >> 17, r ^= r << 5;
    return env->random = r;
}

static inline float start(Env *env) { return (float)(draw(env) >> 8) * (0.1f / 16777216.0f) - 0.05f; }

static inline void reset(Env *env) {
    env->x = start(env), env->x_dot = start(env), env->theta = start(env), env->theta_dot = start(env);
    env->time = 0;
}

static inline void observe(const Env *env, float *obs) {
    obs[0] = env->x, obs[1] = env->x_dot, obs[2] = env->theta, obs[3] = env->theta_dot;
}

void cartpole_reset(Env *envs, int number, uint32_t seed) {
    for (int i = 0; i < number; i++) {
        envs[i].random = (seed + i) * 2654435761u | 1u;
        for (int k = 0; k < 8; k++) draw(&envs[i]);
        reset(&envs[i]);
    }
}

void cartpole_run(Env *envs, int number, int steps, float *obs, float *next_obs, int32_t *action, float *reward,
                  uint8_t *terminated, uint8_t *truncated) {
    for (int t = 0; t < steps; t++) {
        for (int i = 0; i < number; i++) {
            Env *env = &envs[i];
            long row = (long)t * number + i;
            observe(env, obs + 4 * row);
            action[row] = draw(env) >> 31;
            float force = action[row] ? 10.0f : -10.0f;
            float sine = sinf(env->theta), cosine = cosf(env->theta);
            float temp = (force + 0.05f * env->theta_dot * env->theta_dot * sine) / 1.1f;
            float angular = (9.8f * sine - cosine * temp) / (0.5f * (4.0f / 3.0f - 0.1f * cosine * cosine / 1.1f));
            float linear = temp - 0.05f * angular * cosine / 1.1f;
            env->x += 0.02f * env->x_dot;
            env->x_dot += 0.02f * linear;
            env->theta += 0.02f * env->theta_dot;
            env->theta_dot += 0.02f * angular;
            env->time++;
            observe(env, next_obs + 4 * row);
            reward[row] = 1.0f;
            terminated[row] = fabsf(env->x) > 2.4f || fabsf(env->theta) > 0.20943951f;
            truncated[row] = env->time >= 500;
            if (terminated[row] || truncated[row]) reset(env);
        }
    }
}
